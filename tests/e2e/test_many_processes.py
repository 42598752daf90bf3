"""Two workers and two APIs on one engine: what one finds out all know, and limits hold over all."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.agents import Agent, Reply
from tests.support.stack import Stack, eventually, free_port, running

pytestmark = pytest.mark.e2e

SEEN_SECONDS = 10.0
RATE, BURST = 120, 2
WINDOW_SECONDS = 10.0


@asynccontextmanager
async def doubled(stack: Stack) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of two APIs, with two workers behind them."""
    async with AsyncExitStack() as exits:
        port = free_port()
        await exits.enter_async_context(stack.joined("api", port))
        await exits.enter_async_context(stack.joined("worker", free_port()))
        first = await exits.enter_async_context(
            httpx.AsyncClient(base_url=stack.apis[0], timeout=70)
        )
        second = await exits.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=70)
        )

        async def both_ready() -> bool:
            try:
                answer = (await second.get("/health")).json()
            except httpx.TransportError:
                return False
            return bool(answer["status"] == "healthy")

        await eventually(both_ready, 60, "second API")
        yield first, second


async def breaker_of(api: httpx.AsyncClient) -> str:
    """The agent's breaker as one API knows it."""
    return str((await api.get("/metrics")).json()["agents_status"]["test_agent"])


async def test_a_breaker_that_opens_in_one_process_is_known_to_all(tmp_path: Path) -> None:
    """Inline calls of the first API fail: both APIs refuse within two seconds of the opening."""
    config: dict[str, Any] = {
        "agents": {"test_agent": {"instances": []}},
        "routing_rules": [
            {
                "pattern": "fast",
                "target_agent": "test_agent",
                "endpoint": "/work",
                "dispatch": "inline",
            }
        ],
        "error_recovery": {"max_retries": 0, "circuit_breaker_threshold": 3},
    }
    async with Agent() as agent:
        agent.behave(lambda call: Reply(status=500 if call.path == "/work" else 200))
        config["agents"]["test_agent"]["instances"] = [{"url": agent.url}]
        async with running(tmp_path, config) as stack, doubled(stack) as (first, second):
            for _ in range(3):
                body = {"pattern": "fast", "payload": {}}
                await first.post("/orchestrate", json=body, headers={"Prefer": "wait=20"})
            opened = time.monotonic()

            async def known() -> bool:
                states = [await breaker_of(first), await breaker_of(second)]
                return states == ["open", "open"]

            await eventually(known, 20, "an open breaker in both")
            seconds = time.monotonic() - opened
            refused = await second.post("/orchestrate", json=body)
            calls = len(agent.work())

    assert 3 == calls
    assert seconds < SEEN_SECONDS
    assert 503 == refused.status_code


async def test_a_limit_of_mode_queue_holds_over_all_workers(tmp_path: Path) -> None:
    """In any ten seconds no more than the burst, ten seconds of the rate and a tenth."""
    limit = {"rate": RATE, "burst": BURST, "mode": "queue"}
    async with Agent() as agent:
        config = {
            "agents": {"test_agent": {"instances": [{"url": agent.url}], "rate_limit": limit}},
            "routing_rules": [
                {"pattern": "work", "target_agent": "test_agent", "endpoint": "/work"}
            ],
        }
        async with running(tmp_path, config) as stack, doubled(stack) as (first, second):
            posts = [
                api.post("/orchestrate", json={"pattern": "work", "payload": {"n": n}})
                for n, api in zip(range(40), itertools.cycle((first, second)), strict=False)
            ]
            answers = await asyncio.gather(*posts)

            async def blocked() -> Any:
                status = await first.get(f"/status/{answers[-1].json()['task_id']}")
                return status.json().get("blocked_by") == "rate_limit"

            await eventually(blocked, 10, "a task that waits for the limit")

            async def all_called() -> bool:
                return len(agent.work()) == len(answers)

            await eventually(all_called, 60, "calls")

    assert {202} == {answer.status_code for answer in answers}
    times = [call.at for call in agent.work()]
    most = max(sum(1 for at in times if start <= at < start + WINDOW_SECONDS) for start in times)
    assert most <= (BURST + RATE / 60 * WINDOW_SECONDS) * 1.1
    assert times[-1] - times[0] > WINDOW_SECONDS
