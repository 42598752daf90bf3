"""Agents behind RabbitMQ, called by the whole product: all that holds over HTTP holds there."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.rabbit import RabbitServer, rabbit_server
from tests.support.stack import BIN, ROOT, Stack, eventually, running

pytestmark = pytest.mark.e2e

QUEUE = "summaries"
USER, PASSWORD = "guest", "guest"
LOGIN = f"{USER}:{PASSWORD}@"
TEXT = {"text": "Plants make food. They need light."}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """The broker of the module; a test kills it, and starts it again."""
    with rabbit_server(tmp_path_factory.mktemp("rabbit")) as started:
        yield started


@contextlib.asynccontextmanager
async def sample_agent(url: str, directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The sample agent as its users start it, ready."""
    log = directory / "agent.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "examples.queue_agent", url, QUEUE),
            cwd=ROOT,
            env=dict(os.environ),
            stdout=output,
            stderr=output,
        )
    try:

        async def ready() -> bool:
            return "ready" in await asyncio.to_thread(log.read_text)

        await eventually(ready, 60, "the agent")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    broker: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product with rules of every dispatch for the queue, and the sample agent behind it."""
    address = f"amqp://{LOGIN}127.0.0.1:{broker.port}/{QUEUE}"
    common = {"target_agent": "summary_agent", "endpoint": address, "timeout": 60}
    rules: list[dict[str, Any]] = [
        {"pattern": "queued", **common},
        {"pattern": "inline", "dispatch": "inline", **common},
    ]
    nobody = f"amqp://127.0.0.1:{broker.port}/nobody"
    rules.append({"pattern": "nobody", "target_agent": "missing_agent", "endpoint": nobody})
    config: dict[str, Any] = {
        "agents": {"summary_agent": {"health_check": {"interval": 1}}},
        "routing_rules": rules,
        "error_recovery": {
            "retry_delay": 0.2,
            "max_retry_delay": 1,
            "max_retries": 1000,
            "circuit_breaker_threshold": 1000,
        },
    }
    async with (
        sample_agent(broker.url, tmp_path_factory.mktemp("agent")),
        running(tmp_path_factory.mktemp("stack"), config) as started,
    ):
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API."""
    async with stack.client() as client:
        yield client


async def submitted(api: httpx.AsyncClient, pattern: str, payload: object = TEXT) -> str:
    """The id of a new task."""
    answer = await api.post("/orchestrate", json={"pattern": pattern, "payload": payload})
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return str(answer.json()["task_id"])


async def end_of(api: httpx.AsyncClient, task: str) -> dict[str, Any]:
    """The final status of a task."""

    async def final() -> dict[str, Any] | None:
        status = (await api.get(f"/status/{task}", headers={"Prefer": "wait=10"})).json()
        return status if status["status"] in {"completed", "failed"} else None

    found: dict[str, Any] = await eventually(final, 150, "the task's end")
    return found


async def ended(api: httpx.AsyncClient, pattern: str, payload: object = TEXT) -> dict[str, Any]:
    """The final status of a new task."""
    return await end_of(api, await submitted(api, pattern, payload))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("pattern", ["queued", "inline"])
async def test_a_task_is_done_by_the_agent_behind_the_queue(
    api: httpx.AsyncClient, broker: RabbitServer, pattern: str
) -> None:
    """From the agent's task queue, or from the workflow's own worker."""
    status = await ended(api, pattern)
    assert ("completed", {"summary": "Plants make food", "words": 6}) == (
        status["status"],
        status["result"],
    )
    instances = {each["instance"] for each in status["attempt_history"]}
    assert {f"amqp://127.0.0.1:{broker.port}/{QUEUE}"} == instances


@pytest.mark.asyncio(loop_scope="module")
async def test_a_status_of_the_agent_decides_as_over_http(api: httpx.AsyncClient) -> None:
    """422 is for good, with the agent's own words."""
    status = await ended(api, "queued", {"text": 5})
    assert "failed" == status["status"]
    assert "answered 422" in status["error"]
    assert "a string is expected" in status["error"]
    assert 1 == status["attempts"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_batch_goes_through_the_queue(api: httpx.AsyncClient) -> None:
    """Its chunks call the same way."""
    items = [{"pattern": "queued", "payload": {"text": f"{n}. b c"}} for n in range(20)]
    batch = (await api.post("/orchestrate/batch", json=items)).json()["batch_id"]

    async def done() -> bool:
        return bool((await api.get(f"/batches/{batch}")).json()["completed"] == len(items))

    await eventually(done, 120, "the batch")
    lines = (await api.get(f"/batches/{batch}/results")).text.splitlines()
    assert {str(n) for n in range(20)} == {json.loads(each)["result"]["summary"] for each in lines}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_queue_that_is_missing_fails_fast_and_shows_as_unwell(
    api: httpx.AsyncClient, stack: Stack
) -> None:
    """Its health check says what is wrong, and so does the doctor; a served queue is healthy."""

    async def checked() -> bool:
        agents = (await api.get("/agents")).json()["agents"]
        states = {each["name"]: each["instances"][0]["health"] for each in agents}
        return (states["summary_agent"]["state"], states["missing_agent"]["state"]) == (
            "healthy",
            "unhealthy",
        )

    await eventually(checked, 60, "both checks")
    assert "RabbitMQ has no queue 'nobody'" in await _doctor(stack)


async def _doctor(stack: Stack) -> str:
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "orchestrator"), "doctor", "--json"),
        env=stack.variables(),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.asyncio(loop_scope="module")
async def test_user_and_password_are_shown_nowhere(api: httpx.AsyncClient, stack: Stack) -> None:
    """Not in status, events, agents, metrics, logs, nor the engine's history."""
    task = (await ended(api, "queued"))["task_id"]
    paths = (f"/status/{task}", f"/status/{task}/events", "/agents", "/agents/summary_agent")
    seen = [(await api.get(path)).text for path in (*paths, "/tasks", "/metrics", "/health")]
    seen.append((await api.get("/metrics", headers={"Accept": "text/plain"})).text)
    seen += [await stack.temporal("workflow", "show", "-w", task, "-o", "json")]
    seen += [each.read_text(errors="replace") for each in stack.directory.glob("*.log")]
    assert f"127.0.0.1:{_port(stack)}/{QUEUE}" in "".join(seen)
    assert [] == [each for each in seen if LOGIN in each]


def _port(stack: Stack) -> str:
    return str(stack.config["routing_rules"][0]["endpoint"]).rpartition(":")[2].partition("/")[0]


@pytest.mark.asyncio(loop_scope="module")
async def test_tasks_outlive_a_broker_that_is_killed(
    api: httpx.AsyncClient, broker: RabbitServer
) -> None:
    """Worker and agent connect again by themselves; attempts that broke off are made anew."""
    broker.kill()
    task = await submitted(api, "queued")

    async def failed_once() -> bool:
        status = (await api.get(f"/status/{task}")).json()
        history = status.get("attempt_history", ())
        return any(each["outcome"] == "AgentUnreachable" for each in history)

    await eventually(failed_once, 60, "an attempt without a broker")
    await asyncio.to_thread(broker.start)
    status = await end_of(api, task)
    assert "completed" == status["status"]
