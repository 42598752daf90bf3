"""What a process answers to probes at its metrics port."""

import asyncio
import threading

import httpx
import pytest

from orchestrator.telemetry import exposition
from orchestrator.telemetry.exposition import Exposition, serving
from tests.support.stack import free_port


async def probe(shown: Exposition, path: str) -> tuple[int, str]:
    """What it answers over HTTP."""
    port = free_port()
    with serving(shown, "127.0.0.1", port):
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.get(f"http://127.0.0.1:{port}{path}")
    return answer.status_code, answer.text


async def nothing() -> str | None:
    """No problem."""
    return None


async def away() -> str | None:
    """One."""
    return "the engine is away"


async def test_starting_process_lives_and_is_not_ready() -> None:
    """Before it has said that it is ready, it is not."""
    shown = Exposition()
    assert (200, "ok\n") == await probe(shown, "/live")
    assert (503, "this process is starting\n") == await probe(shown, "/ready")


async def test_ready_process_says_so() -> None:
    """Nothing is in its way."""
    shown = Exposition()
    shown.ready(nothing)
    assert (200, "ok\n") == await probe(shown, "/ready")


async def test_problem_is_told_and_the_process_lives() -> None:
    """What keeps it from being ready is no reason to end it."""
    shown = Exposition()
    shown.ready(away)
    assert (503, "the engine is away\n") == await probe(shown, "/ready")
    assert (200, "ok\n") == await probe(shown, "/live")


async def test_loop_that_hangs_does_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose loop answers no more is to be started again."""
    monkeypatch.setattr(exposition, "PROBE_SECONDS", 0.1)
    shown, hanging = Exposition(), asyncio.new_event_loop()
    running = threading.Thread(target=hanging.run_forever)
    running.start()
    go_on = threading.Event()
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def hang() -> None:
        shown.ready(nothing)
        begun.get_loop().call_soon_threadsafe(begun.set_result, None)
        go_on.wait()

    work = asyncio.run_coroutine_threadsafe(hang(), hanging)
    try:
        await begun
        code, text = await probe(shown, "/live")
    finally:
        go_on.set()
        await asyncio.wrap_future(work)
        hanging.call_soon_threadsafe(hanging.stop)
        running.join()
        hanging.close()
    assert (503, "this process has not answered for 0.1 s\n") == (code, text)
