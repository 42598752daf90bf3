"""`orchestrator run`, `worker` and `api` as programs: starts, stops, crashes, clear refusals."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.engine.embedded import DATABASE
from tests.support.agents import Agent
from tests.support.page_cache import needs_unwritten_pages, unwritten_pages
from tests.support.stack import (
    BIN,
    Stack,
    agent_config,
    children,
    command_line,
    ended,
    eventually,
    free_port,
    running,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.own_topology("it is about orchestrator run"),
]

NO_AGENT: dict[str, Any] = agent_config("http://127.0.0.1:9")


async def outcome(stack: Stack, *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of a command that should end by itself."""
    process = await asyncio.create_subprocess_exec(
        str(BIN / "orchestrator"),
        *arguments,
        env={**stack.variables(), **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    return process.returncode or 0, errors.decode()


def one_line(errors: str) -> str:
    """The single line that a refusal may have."""
    assert 1 == len(errors.strip().splitlines()), errors
    return errors


@pytest.mark.timeout(400)
async def test_starts_and_stops_in_a_row_leave_nothing_behind(tmp_path: Path) -> None:
    """Exit 0 each time, by either signal; no process stays; stderr stays empty."""
    stack = Stack(tmp_path, NO_AGENT)
    for number in range(4):
        await stack.start()
        assert stack.process is not None
        parts = children(stack.process.pid)
        code = await stack.stop((signal.SIGINT, signal.SIGTERM)[number % 2])

        assert 0 == code
        assert 3 == len(parts)
        assert [] == [command_line(pid) for pid in parts if command_line(pid)]
    assert "" == stack.complained()


async def test_a_stop_while_starting_is_clean(tmp_path: Path) -> None:
    """Ctrl-C before it is ready ends everything, exit 0."""
    stack = Stack(tmp_path, NO_AGENT)
    await stack.launch()
    assert stack.process is not None
    pid = stack.process.pid

    async def has_started_something() -> Any:
        return children(pid)

    parts = await eventually(has_started_something)
    code = await stack.stop()

    assert 0 == code
    assert [] == [command_line(each) for each in parts if command_line(each)]
    assert "" == stack.complained()


async def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """After kill -9 of `orchestrator run` no process is left, and the next one starts as ever.

    The kernel ends them at once; only a busy machine takes some of the time given here.
    """
    async with running(tmp_path, NO_AGENT) as stack:
        assert stack.process is not None
        parts = children(stack.process.pid)
        stack.process.kill()
        await stack.process.wait()

        await ended(parts)
        await stack.start()


async def test_a_crashed_part_is_started_again_and_said(tmp_path: Path) -> None:
    """After kill -9 the API comes back, and a line says what happened."""
    async with running(tmp_path, NO_AGENT) as stack, stack.client() as api:
        await stack.kill("api")

        async def back() -> bool:
            try:
                return (await api.get("/health")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(back)
        assert '"part":"api"' in stack.said()
        assert "SIGKILL" in stack.said()


async def test_what_the_engine_commits_reaches_the_disk_soon(tmp_path: Path) -> None:
    """By itself the system would write it out half a minute later; after a crash and a stop too."""
    needs_unwritten_pages(tmp_path)
    async with running(tmp_path, NO_AGENT) as stack, stack.client() as api:
        log = stack.data_dir / f"{DATABASE}-wal"

        async def accepted() -> bool:
            try:
                answer = await api.post("/orchestrate", json={"pattern": "work", "payload": {}})
            except httpx.TransportError:
                return False
            return answer.is_success

        async def on_disk() -> bool:
            return unwritten_pages(log) == 0

        for _ in range(3):
            await eventually(accepted)
            await eventually(on_disk, 5)
        await stack.kill("engine")
        await eventually(accepted)
        await eventually(on_disk, 5)
        await api.post("/orchestrate", json={"pattern": "work", "payload": {}})
        await stack.stop()
        assert 0 == unwritten_pages(log)


async def test_a_part_that_crashes_again_and_again_ends_the_whole(tmp_path: Path) -> None:
    """Six crashes within a minute: everything ends with exit 1 and one clear line."""
    stack = Stack(tmp_path, NO_AGENT)
    await stack.start()
    assert stack.process is not None
    process = stack.process

    async def crash() -> bool:
        if process.returncode is None:
            try:
                os.kill(stack.pid_of("worker"), signal.SIGKILL)
            except (LookupError, ProcessLookupError):
                return False
        return process.returncode is not None

    await eventually(crash, 60)

    assert 1 == process.returncode
    assert "The worker ended 6 times within 60 s" in one_line(stack.complained())


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("port", "--port"),
        ("metrics_port", "monitoring.metrics_port"),
        ("engine_port", "temporal.embedded.port"),
        ("ui_port", "temporal.embedded.ui_port"),
    ],
)
async def test_a_taken_port_is_one_clear_line(tmp_path: Path, attribute: str, words: str) -> None:
    """Which port, what for, and how to choose another; exit 1."""
    stack = Stack(tmp_path, NO_AGENT)
    port = getattr(stack, attribute)
    with socket.create_server(("127.0.0.1", port)):
        code, errors = await outcome(stack, "run", "--no-agents")

    assert 1 == code
    assert str(port) in one_line(errors)
    assert words in errors


async def test_a_data_directory_of_another_engine_version_is_one_clear_line(
    tmp_path: Path,
) -> None:
    """It is refused and left as it was."""
    stack = Stack(tmp_path, NO_AGENT)
    stack.data_dir.mkdir()
    marker = stack.data_dir / "engine.json"
    marker.write_text('{"server": "0.9"}')

    code, errors = await outcome(stack, "run", "--no-agents")

    assert 1 == code
    assert "made by engine 0.9" in one_line(errors)
    assert "--data-dir" in errors
    assert '{"server": "0.9"}' == marker.read_text()


async def test_a_data_directory_in_use_is_one_clear_line(tmp_path: Path) -> None:
    """Two products never share an engine's file."""
    async with running(tmp_path / "first", NO_AGENT) as first:
        second = Stack(tmp_path / "first", NO_AGENT)

        code, errors = await outcome(second, "run", ORCHESTRATOR_DATA_DIR=str(first.data_dir))

    assert 1 == code
    assert "in use" in one_line(errors)


async def test_an_unusable_data_directory_is_one_clear_line(tmp_path: Path) -> None:
    """A file where the directory should be."""
    stack = Stack(tmp_path, NO_AGENT)
    blocked = tmp_path / "file"
    blocked.write_text("")

    code, errors = await outcome(stack, "run", ORCHESTRATOR_DATA_DIR=str(blocked / "inside"))

    assert 1 == code
    assert "cannot be used" in one_line(errors)


@pytest.mark.parametrize("part", ["worker", "api"])
async def test_an_unreachable_engine_is_one_clear_line(tmp_path: Path, part: str) -> None:
    """Exit 1 after connect_timeout, naming address and setting."""
    stack = Stack(tmp_path, NO_AGENT)
    address = f"127.0.0.1:{free_port()}"

    code, errors = await outcome(
        stack,
        part,
        ORCHESTRATOR_TEMPORAL__ADDRESS=address,
        ORCHESTRATOR_TEMPORAL__CONNECT_TIMEOUT="1",
    )

    assert 1 == code
    assert f"No engine answers at {address} (temporal.address)" in one_line(errors)


async def test_an_option_outranks_its_variable(tmp_path: Path) -> None:
    """--port for the whole and all its parts, whatever ORCHESTRATOR_PORT says."""
    stack = Stack(tmp_path, NO_AGENT)
    environment = {"ORCHESTRATOR_PORT": str(free_port())}
    stack = Stack(tmp_path, NO_AGENT, ("--no-agents", "--port", str(stack.port)), environment)
    stack.port = int(stack.options[-1])
    await stack.start()
    async with stack.client() as api:
        health = await api.get("/health")
    code = await stack.stop()

    assert (200, 0) == (health.status_code, code)


async def test_a_wrong_namespace_is_one_clear_line(tmp_path: Path) -> None:
    """It is the namespace that is missing, not the engine."""
    async with running(tmp_path / "engine", NO_AGENT) as engine:
        code, errors = await outcome(
            Stack(tmp_path, NO_AGENT),
            "api",
            ORCHESTRATOR_TEMPORAL__ADDRESS=engine.engine,
            ORCHESTRATOR_TEMPORAL__NAMESPACE="nope",
            ORCHESTRATOR_TEMPORAL__CONNECT_TIMEOUT="2",
        )

    assert 1 == code
    assert "has no namespace 'nope': correct temporal.namespace" in one_line(errors)


@pytest.mark.parametrize("part", ["run", "worker", "api"])
async def test_a_wrong_configuration_is_told_at_once(tmp_path: Path, part: str) -> None:
    """All problems, each with its line; exit 2."""
    stack = Stack(tmp_path, NO_AGENT)
    stack.config_path.write_text("load_balancing:\n  strategy: best\nagnet: {}\n")

    code, errors = await outcome(stack, part)

    assert 2 == code
    assert "config.yaml:2: load_balancing.strategy" in errors
    assert "config.yaml:3: agnet" in errors
    assert "Traceback" not in errors


async def test_worker_and_api_run_apart_from_the_supervisor(tmp_path: Path) -> None:
    """They take an engine by its address, and end with exit 0 on SIGTERM."""
    async with Agent() as agent, running(tmp_path / "engine", agent_config(agent.url)) as engine:
        other = Stack(tmp_path, agent_config(agent.url))
        variables = {**other.variables(), "ORCHESTRATOR_TEMPORAL__ADDRESS": engine.engine}
        parts = []
        for name, metrics in (("worker", other.metrics_port + 1), ("api", other.metrics_port)):
            parts.append(
                await asyncio.create_subprocess_exec(
                    str(BIN / "orchestrator"),
                    name,
                    env={**variables, "ORCHESTRATOR_MONITORING__METRICS_PORT": str(metrics)},
                    stdout=asyncio.subprocess.DEVNULL,
                )
            )
        async with other.client() as api:

            async def healthy() -> bool:
                try:
                    return bool((await api.get("/health")).json()["status"] == "healthy")
                except httpx.TransportError:
                    return False

            await eventually(healthy)
            done = await api.post(
                "/orchestrate",
                json={"pattern": "work", "payload": {}},
                headers={"Prefer": "wait=20"},
            )
        for part in parts:
            part.send_signal(signal.SIGTERM)
        codes = [await part.wait() for part in parts]

    assert "completed" == done.json()["status"]
    assert [0, 0] == codes


async def test_a_worker_ends_though_the_engine_is_gone(tmp_path: Path) -> None:
    """Where its shutdown would wait for the engine's word for ever, it is ended and says so."""
    async with running(tmp_path / "engine", NO_AGENT) as engine:
        other = Stack(tmp_path, NO_AGENT)
        with other.output.open("ab") as output:
            worker = await asyncio.create_subprocess_exec(
                str(BIN / "orchestrator"),
                "worker",
                env={
                    **other.variables(),
                    "ORCHESTRATOR_TEMPORAL__ADDRESS": engine.engine,
                    "ORCHESTRATOR_TEMPORAL__SHUTDOWN_GRACE": "0.5",
                },
                stdout=output,
            )

        async def ready() -> bool:
            return "worker_ready" in other.said()

        await eventually(ready)
    worker.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(60):
            code = await worker.wait()
    except TimeoutError:
        worker.kill()
        raise

    assert (1 if "stop_overdue" in other.said() else 0) == code
