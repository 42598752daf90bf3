"""The Python client against the running product."""

import asyncio
import re
import sys
from typing import Any

import pytest

from orchestrator.aggregate_status import AggregateState
from orchestrator.client import (
    AsyncOrchestratorClient,
    InvalidRequest,
    NotFound,
    OrchestratorClient,
)
from orchestrator.models import TaskRequest, TaskState
from tests.support.stack import ROOT, Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

WORK: dict[str, Any] = {"pattern": "work", "payload": {}}


async def test_tasks_are_submitted_once_and_waited_for(stack: Stack) -> None:
    """The same key is the same task."""
    async with AsyncOrchestratorClient(stack.url) as client:
        first = await client.submit("work", {"n": 1}, idempotency_key="client-1")
        again = await client.submit("work", {"n": 1}, idempotency_key="client-1", wait=20)
        done = await client.wait(first.task_id, timeout=30)
        with pytest.raises(InvalidRequest, match="Unknown pattern 'wrok'") as caught:
            await client.submit("wrok", {})
        with pytest.raises(NotFound):
            await client.status("none")
    assert first.task_id == again.task_id == done.task_id
    assert (TaskState.COMPLETED, {"text": "done"}) == (done.status, done.result)
    assert ["work"] == caught.value.problem["closest"]


async def test_what_happens_is_followed(stack: Stack) -> None:
    """Each event once, to the end; from any of them on again."""
    async with AsyncOrchestratorClient(stack.url) as client:
        task = await client.submit("work", {"n": 2})
        events = [each async for each in client.events(task.task_id)]
        rest = [each async for each in client.events(task.task_id, last_event_id=events[0].id)]
        batch = await client.batch([WORK, WORK])
        counted = [each async for each in client.batch_events(batch.batch_id)]
    assert len(events) == len({each.id for each in events}) > 1
    assert events[1:] == rest
    assert "completed" in events[-1].event
    assert 2 == counted[-1].data["completed"]


async def test_batches_and_aggregates(stack: Stack) -> None:
    """Handed in, waited for, read, joined."""
    async with AsyncOrchestratorClient(stack.url) as client:
        rehearsed = await client.batch_dry_run([WORK] * 3)
        accepted = await client.batch([WORK, TaskRequest(**WORK), WORK])
        ended = await client.wait_batch(accepted.batch_id, timeout=30)
        ids = [each.task_id async for each in client.results(accepted.batch_id)]
        joined = await client.aggregate(ids, tasks=[WORK], join={"at_least": 4})
        over = await client.wait_aggregate(joined.aggregate_id, timeout=30)
    assert {"test_agent": 3} == rehearsed.agents
    assert (3, 3) == (ended.completed, len(set(ids)))
    assert (AggregateState.COMPLETED, 4) == (over.status, over.completed)


def _operate(url: str) -> tuple[Any, ...]:
    """What an operator does, by the client that waits."""
    with OrchestratorClient(url) as client:
        drained = client.drain("test_agent", reason="client")
        resumed = client.resume("test_agent")
        limited = client.limit("test_agent", max_connections=9)
        cleared = client.limit("test_agent", clear=True)
        listed = client.agents()
        letters = list(client.dead_letters(tenant="nobody"))
        health, metrics = client.health(), client.metrics()
    return drained, resumed, limited, cleared, listed, letters, health, metrics


async def test_operators_steer_by_it(stack: Stack) -> None:
    """Agents, dead letters, health and numbers."""
    drained, resumed, limited, cleared, listed, letters, health, metrics = await asyncio.to_thread(
        _operate, stack.url
    )
    assert (True, False) == (drained.instances[0].draining, resumed.instances[0].draining)
    assert (9, ()) == (limited.limits.max_connections, cleared.limits.set_at_run_time)
    assert ["test_agent"] == [each.name for each in listed.agents]
    assert ([], "healthy", True) == (letters, health.status, "total_tasks" in metrics)


async def test_the_documented_examples_run(stack: Stack) -> None:
    """As docs/client.md has them, with this product's URL and pattern."""
    text = (ROOT / "docs" / "client.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert 2 == len(examples)
    for example in examples:
        program = example.replace("http://127.0.0.1:8000", stack.url).replace("upload_pdf", "work")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", program),
            env={**stack.variables(), "ORCHESTRATOR_URL": stack.url},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert (0, "") == (process.returncode, errors.decode())
        assert b"completed" in output
