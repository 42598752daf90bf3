"""Batches through crashes: every item has one outcome, and only what was in flight is repeated."""

import asyncio
import itertools
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from orchestrator.batches import BATCH_WORKFLOW, BatchTally, batch_id_of, item_id
from orchestrator.config import Temporal
from orchestrator.dead_letters import dead_letter_id
from orchestrator.engine.dead_letters import MEMO_ERROR
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE, agent_queue
from tests.support.agents import Agent, Call, Reply
from tests.support.engine import client_of
from tests.support.stack import Stack, agent_config, eventually, free_port, running
from tests.workflows.batch_stage import Handle, told

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

END_SECONDS = 120.0
ITEMS = 2000
SLOWLY = Reply(delay=0.1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """Slow enough that many calls are in flight whenever something is killed."""
    async with Agent(SLOWLY) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The product, whose parts come back after each test."""
    config = {**agent_config(agent.url), "temporal": {"rpc_timeout": 3}}
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


async def connected(stack: Stack) -> Client:
    """A client of the engine, as soon as it is there."""
    return await client_of(
        Temporal(address=stack.engine, namespace=stack.namespace, connect_timeout=60)
    )


async def begin(stack: Stack, count: int) -> Handle:
    """Start a batch by the engine's client, once every worker takes the agent's calls."""
    client = await connected(stack)

    async def workers() -> list[int] | None:
        try:
            return stack.pids_of("worker")
        except LookupError:
            return None

    for pid in await eventually(workers, END_SECONDS, "workers"):
        await polls(client, pid)
    tasks = [{"pattern": "work", "payload": {"n": n}} for n in range(count)]
    return await client.start_workflow(
        BATCH_WORKFLOW,
        {"tasks": tasks},
        id=batch_id_of(uuid.uuid4()),
        task_queue=WORKFLOW_QUEUE,
        result_type=BatchTally,
    )


async def polls(client: Client, pid: int) -> None:
    """Wait until that worker takes the agent's calls."""

    async def there() -> bool:
        answer = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=client.namespace,
                task_queue=TaskQueue(name=agent_queue("test_agent")),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            ),
            timeout=timedelta(seconds=10),
        )
        return f"worker@{pid}" in {poller.identity for poller in answer.pollers}

    await eventually(there, END_SECONDS, f"worker {pid}")


async def ended(handle: Handle) -> BatchTally:
    """The result, asked for until the engine can tell it."""
    async with asyncio.timeout(END_SECONDS):
        return await handle.result()


def calls_of(agent: Agent, handle: Handle, count: int) -> list[int]:
    """How often each item was called."""
    ids = [item_id(handle.id, position) for position in range(count)]
    calls = Counter(call.headers.get("Idempotency-Key") for call in agent.calls)
    return [calls[each] for each in ids]


async def called(
    agent: Agent, handle: Handle, count: int, least: int, which: int | None = None
) -> None:
    """Wait until so many calls of a batch, or of one of its items, were made."""

    async def there() -> bool:
        calls = calls_of(agent, handle, count)
        return (sum(calls) if which is None else calls[which]) >= least

    await eventually(there, END_SECONDS, f"{least} calls")


async def test_a_worker_that_is_killed_repeats_only_what_was_in_flight(
    agent: Agent, stack: Stack
) -> None:
    """2,000 items and kill -9: one outcome each, no item called more than twice."""
    handle = await begin(stack, ITEMS)
    await called(agent, handle, ITEMS, 500)
    await stack.kill("worker")
    tally = await ended(handle)
    found = await told(handle)
    calls = calls_of(agent, handle, ITEMS)
    assert BatchTally(total=ITEMS, completed=ITEMS) == tally
    assert (list(range(ITEMS)), []) == (found.positions(TaskState.COMPLETED), found.alone)
    assert {1, 2} == set(calls)


async def test_a_batch_outlives_the_engine_and_the_api(agent: Agent, stack: Stack) -> None:
    """Both are killed in its middle."""
    handle = await begin(stack, 1000)
    await called(agent, handle, 1000, 200)
    await stack.kill("api")
    await called(agent, handle, 1000, 400)
    await stack.kill("engine")
    client = await connected(stack)
    handle = client.get_workflow_handle(handle.id, result_type=BatchTally)
    tally = await ended(handle)
    found = await told(handle)
    assert BatchTally(total=1000, completed=1000) == tally
    ends = {item_id(handle.id, n) for n in found.positions(TaskState.COMPLETED)}
    assert {item_id(handle.id, n) for n in range(1000)} == ends | set(found.alone)
    assert not ends & set(found.alone)
    assert {1, 2} >= set(calls_of(agent, handle, 1000))


async def test_a_worker_that_is_stopped_politely_repeats_nothing(
    agent: Agent, stack: Stack
) -> None:
    """What is in flight ends; the next worker does the rest."""
    handle = await begin(stack, 1000)
    await called(agent, handle, 1000, 300)
    stack.send("worker", signal.SIGTERM)
    tally = await ended(handle)
    found = await told(handle)
    assert BatchTally(total=1000, completed=1000) == tally
    assert list(range(1000)) == found.positions(TaskState.COMPLETED)
    assert {1} == set(calls_of(agent, handle, 1000))


async def test_two_workers_share_a_batch(agent: Agent, stack: Stack) -> None:
    """Each item is called by one of them, and several take part."""
    async with stack.joined("worker", free_port()) as second:
        await polls(await connected(stack), second.pid)
        handle = await begin(stack, ITEMS)
        tally = await ended(handle)
        history = await handle.fetch_history()
    who = {
        event.activity_task_started_event_attributes.identity
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    }
    assert BatchTally(total=ITEMS, completed=ITEMS) == tally
    assert len(who) >= 2
    assert {1} == set(calls_of(agent, handle, ITEMS))


async def test_an_item_that_ends_its_worker_is_put_aside(tmp_path: Path) -> None:
    """The others complete, it becomes a dead letter, and the worker lives."""
    count, poison = 30, 17
    others = BatchTally(total=count, completed=count - 1)
    async with Agent(decide=lambda call: Reply(hang=_number(call) == poison)) as agent:
        config = agent_config(agent.url)
        config["error_recovery"] |= {"max_retries": 0, "dead_letter_queue": True}
        async with running(tmp_path, config) as stack:
            handle = await begin(stack, count)
            own, task_id = False, item_id(handle.id, poison)
            for times in itertools.count(1):
                await called(agent, handle, count, times, which=poison)
                own = task_id in (await told(handle)).alone
                if own:
                    await counted(handle, others)
                await stack.kill("worker")
                if own:
                    break
            tally = await ended(handle)
            letter = handle._client.get_workflow_handle(dead_letter_id(task_id))
            error = await (await letter.describe()).memo_value(MEMO_ERROR)
            after = await ended(await begin(stack, poison))
        calls = calls_of(agent, handle, count)
    assert BatchTally(total=count, completed=count - 1, failed=1) == tally
    assert "the worker that made the call" in error
    assert calls[poison] <= 3
    assert BatchTally(total=poison, completed=poison) == after


def _number(call: Call) -> Any:
    return call.body["n"] if call.path == "/work" else None


async def counted(handle: Handle, tally: BatchTally) -> None:
    """Wait until the batch counts so many."""

    async def there() -> bool:
        return tally == BatchTally.model_validate(await handle.query("status"))

    await eventually(there, END_SECONDS, str(tally))
