"""TaskBatch on the real engine with real agents, and what its histories tell."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from activities.follow_parts import PartsFollower
from activities.resolve_plan import PlanResolver
from orchestrator.batches import (
    BATCH_WORKFLOW,
    MEMO_TALLY,
    RECORD,
    BatchTally,
    ChunkReport,
    batch_id_of,
    item_id,
)
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import eventually
from tests.workflows.agents_stage import GRACE, RPC_SECONDS, Stage, idle
from workflows.hosting import WORKFLOWS, workflow_worker

WAIT_SECONDS = 60.0
Handle = WorkflowHandle[Any, BatchTally]


@dataclass
class Told:
    """What the histories of a batch's runs tell of its items.

    Args:
        ends: how each item ended; more than one word for an item fails the test.
        dead: positions of those that became dead letters.
        alone: ids of the tasks that were started for items.
        chunks: for each chunk that was asked for the priority and fairness of it.
        runs: how many there were.
        events: of all runs.
    """

    ends: dict[int, TaskState] = field(default_factory=dict)
    dead: list[int] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)
    runs: int = 0
    events: int = 0

    def add(self, report: ChunkReport) -> None:
        """Take in the outcomes of a report."""
        for each in report.outcomes:
            assert each.position not in self.ends, each
            self.ends[each.position] = each.state
            if each.dead_letter:
                self.dead.append(each.position)

    def positions(self, state: TaskState) -> list[int]:
        """Which ended so within a chunk."""
        return sorted(position for position, each in self.ends.items() if each is state)


def workflows(stage: Stage, *further: Callable[..., Any]) -> Any:
    """A worker for the workflows and what follows the parts of batches, and further activities."""
    follower = PartsFollower(stage.client, RPC_SECONDS)
    return workflow_worker(
        stage.client,
        stage.calls,
        PlanResolver(stage.routes),
        GRACE,
        long_activities=[follower.follow_parts, *further],
    )


@asynccontextmanager
async def batching(client: Client, *agents: Agent, **settings: Any) -> AsyncIterator[Stage]:
    """Everything that runs; ``settings`` as those of agents_stage.idle."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(idle(client, *agents, **settings))
        await stack.enter_async_context(workflows(stage))
        for which in range(len(stage.names)):
            await stack.enter_async_context(stage.worker(which))
        yield stage


def numbered(stage: Stage, count: int, **fields: Any) -> list[dict[str, Any]]:
    """So many requests, whose payloads are their positions."""
    return [{"pattern": stage.names[0], "payload": {"n": n}, **fields} for n in range(count)]


async def start(stage: Stage, tasks: Any, batch_id: str = "", **options: Any) -> Handle:
    """Start a batch as anybody may: by name, with plain JSON."""
    return await stage.client.start_workflow(
        BATCH_WORKFLOW,
        {"tasks": tasks},
        id=batch_id or batch_id_of(uuid4()),
        task_queue=WORKFLOW_QUEUE,
        result_type=BatchTally,
        **options,
    )


async def tally_of(handle: Handle) -> BatchTally:
    """How the items of a batch have ended, which it says in its result and in its memo."""
    async with asyncio.timeout(WAIT_SECONDS):
        tally = await handle.result()
    return BatchTally.model_validate(tally)


async def told_tally(handle: Handle) -> BatchTally:
    """What the memo says, which GET /batches reads."""
    return BatchTally.model_validate((await (await handle.describe()).memo())[MEMO_TALLY])


async def failure_of(handle: Handle) -> BaseException:
    """Why a batch was not carried out."""
    with pytest.raises(WorkflowFailureError) as caught:
        async with asyncio.timeout(WAIT_SECONDS):
            await handle.result()
    return caught.value.cause


async def told(handle: Handle) -> Told:
    """What the histories of all runs tell, from the latest backwards."""
    client, found = handle._client, Told()
    run_id = (await handle.describe()).run_id
    while run_id:
        history = await client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
        started = history.events[0].workflow_execution_started_event_attributes
        run_id = started.continued_execution_run_id
        found.runs += 1
        found.events += len(history.events)
        chunks = set[int]()
        for event in history.events:
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name == "run_chunk":
                chunks.add(event.event_id)
                found.chunks.append(scheduled.priority)
            begun = event.start_child_workflow_execution_initiated_event_attributes
            if begun.workflow_type.name == WORKFLOW_TYPE:
                found.alone.append(begun.workflow_id)
        for payloads in _reports(history.events, chunks):
            [report] = await client.data_converter.decode(payloads, [ChunkReport])
            found.add(report)
    return found


def _reports(events: Iterable[HistoryEvent], chunks: set[int]) -> Iterator[Any]:
    for event in events:
        ended = event.activity_task_completed_event_attributes
        if ended.scheduled_event_id in chunks:
            yield ended.result.payloads
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == RECORD:
            yield signal.input.payloads


async def replayed(handle: Handle) -> None:
    """The latest run replays inside the sandbox; raises when it does something else."""
    replayer = Replayer(
        workflows=WORKFLOWS,
        workflow_runner=SandboxedWorkflowRunner(),
        data_converter=handle._client.data_converter,
    )
    await replayer.replay_workflow(await handle.fetch_history())


async def recorded(handle: Handle, what: str, times: int = 1) -> None:
    """Wait until the run has so many events of a kind, as its attributes are named."""

    async def there() -> bool:
        history = await handle.fetch_history()
        return times <= sum(event.WhichOneof("attributes") == what for event in history.events)

    await eventually(there, WAIT_SECONDS, what)


def calls_by_item(agent: Agent, batch_id: str, count: int) -> list[int]:
    """How often each item was called."""
    return [len(agent.calls_of(item_id(batch_id, position))) for position in range(count)]


def echo(call: Call) -> Reply:
    """An answer that tells whose it is."""
    return Reply(body={"n": call.body["n"]})
