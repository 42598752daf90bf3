"""A stand-in for workflow TaskBatch that records what a test tells it to, step by step."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from orchestrator.batches import (
    BATCH_WORKFLOW,
    CANCEL_ITEMS,
    MEMO_STARTS,
    MEMO_TALLY,
    RECORD,
    RUN_CHUNK,
    BatchPlan,
    BatchTally,
    ChunkReport,
    ItemOutcome,
    batch_id_of,
    item_id,
    part_id,
)
from orchestrator.engine.batches import Batches
from orchestrator.engine.record import MEMO_CREATED_AT
from orchestrator.engine.tasks import Tasks
from orchestrator.models import TaskOutcome, TaskState
from orchestrator.routing import WORKFLOW_TYPE
from tests.support.plans import AGENT, plan
from tests.support.stack import eventually

RPC_SECONDS = 5.0
WAIT_SECONDS = 30.0
CREATED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
ENDED = datetime(2026, 1, 15, 10, 31, tzinfo=UTC)
NEXT = "next"
"""The signal that brings one step."""


@workflow.defn(name=BATCH_WORKFLOW)
class ScriptedBatch:
    """Does each step that it is sent; ``chunk`` steps run on while others are done."""

    def __init__(self) -> None:
        self._steps: list[dict[str, Any]] = []
        self._chunks: list[asyncio.Task[Any]] = []

    @workflow.run
    async def run(self, given: dict[str, Any]) -> BatchTally:
        """Until a step ends it."""
        self._steps = given.get("steps", []) + self._steps
        while True:
            await workflow.wait_condition(lambda: bool(self._steps))
            step = self._steps.pop(0)
            if "chunk" in step:
                self._chunks.append(asyncio.create_task(self._chunk(given["queue"], step)))
            elif "own" in step:
                await workflow.start_child_workflow(
                    WORKFLOW_TYPE,
                    step["result"],
                    id=step["own"],
                    parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                )
            elif "memo" in step:
                workflow.upsert_memo({MEMO_TALLY: step["memo"]})
            elif "rest" in step:
                workflow.continue_as_new(given | step["rest"] | {"steps": self._steps})
            elif "fail" in step:
                raise ApplicationError(step["fail"], type="Broken", non_retryable=True)
            else:
                return BatchTally()

    async def _chunk(self, queue: str, step: dict[str, Any]) -> Any:
        return await workflow.execute_activity(
            RUN_CHUNK,
            step["chunk"],
            task_queue=queue,
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )

    @workflow.signal(name=NEXT)
    def next(self, step: dict[str, Any]) -> None:
        """One more step."""
        self._steps.append(step)

    @workflow.signal(name=RECORD)
    def record(self, _: dict[str, Any]) -> None:
        """It stands in the history, which is all that is wanted."""

    @workflow.signal(name=CANCEL_ITEMS)
    def cancel_items(self, _: list[int]) -> None:
        """It stands in the history, which is all that is wanted."""


@workflow.defn(name=WORKFLOW_TYPE)
class ScriptedTask:
    """An item's own workflow: ends with what it is given, or waits."""

    @workflow.run
    async def run(self, result: dict[str, Any] | None) -> TaskOutcome:
        """The outcome."""
        await workflow.wait_condition(lambda: result is not None)
        return TaskOutcome(agent=AGENT, attempts=2, result=result)


@activity.defn(name=RUN_CHUNK)
async def scripted_chunk(chunk: dict[str, Any]) -> ChunkReport:
    """Gives the report; with ``held`` only tells of it, and goes on."""
    report = ChunkReport.model_validate(chunk["report"])
    activity.heartbeat(report)
    while chunk.get("held"):
        await asyncio.sleep(0.05)
        activity.heartbeat(report)
    return report


def outcome(position: int, state: TaskState = TaskState.COMPLETED, **fields: Any) -> ItemOutcome:
    """How an item ended, at its first attempt."""
    if state is TaskState.COMPLETED:
        fields = {"result": {"n": position}} | fields
    defaults = {"attempt": 1, "instance": "http://agent", "status": 200, "seconds": 0.25}
    return ItemOutcome(position=position, state=state, at=ENDED, **(defaults | fields))


def report(*outcomes: ItemOutcome, **fields: Any) -> ChunkReport:
    """What a chunk tells."""
    return ChunkReport(agent=AGENT, outcomes=outcomes, **fields)


def items(*positions: int) -> dict[str, Any]:
    """The part of a batch's input that names its items."""
    return {
        "items": [
            f'{{"pattern":"read_pdf","payload":{{"n":{position}}},"tenant":"school"}}'
            for position in positions
        ],
        "chosen": [0] * len(positions),
        "plans": [BatchPlan(plan=plan(priority=4)).model_dump(mode="json")],
    }


@dataclass
class Script:
    """One batch of scripted workflows."""

    client: Client
    batch_id: str
    queue: str
    tasks: Tasks

    @property
    def batches(self) -> Batches:
        """What is tested."""
        return self.tasks.batches

    def task_id(self, position: int) -> str:
        """The task id of an item."""
        return item_id(self.batch_id, position)

    async def start(
        self, total: int, part: int = 0, first: int = 0, starts: tuple[int, ...] = (0,)
    ) -> WorkflowHandle[Any, Any]:
        """Start a part of the batch."""
        positions = range(first, first + total)
        memo = {MEMO_TALLY: BatchTally(total=total), MEMO_CREATED_AT: CREATED.isoformat()}
        return await self.client.start_workflow(
            BATCH_WORKFLOW,
            {"queue": self.queue, "first": first, "part": part} | items(*positions),
            id=part_id(self.batch_id, part),
            task_queue=self.queue,
            memo=memo | ({} if part else {MEMO_STARTS: list(starts)}),
        )

    async def step(self, part: int = 0, **step: Any) -> None:
        """Have the batch do something."""
        await self._handle(part).signal(NEXT, step)

    async def signal(self, name: str, argument: Any) -> None:
        """Send the batch a signal."""
        await self._handle(0).signal(name, argument)

    async def chunk(
        self,
        *positions: int,
        told: ChunkReport | None = None,
        held: bool = False,
        part: int = 0,
    ) -> None:
        """Have the batch run a chunk."""
        given = {"positions": positions, "items": ["{}"] * len(positions), "held": held}
        given["report"] = (told or report()).model_dump(mode="json", exclude_unset=True)
        await self.step(part, chunk=given)

    async def reaches(self, position: int, state: TaskState) -> Any:
        """The item's status once it is in that state."""

        async def look() -> Any:
            status = await self.batches.item(self.batch_id, position)
            return status if status.status is state else None

        return await eventually(look, what=f"item {position} {state}")

    async def closes(self) -> None:
        """Wait for the end of part 0."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self.batches.status(self.batch_id, WAIT_SECONDS)

    def _handle(self, part: int) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(part_id(self.batch_id, part))


@asynccontextmanager
async def scripted(client: Client, *, chunks: bool = True) -> AsyncIterator[Script]:
    """A batch's id, and a worker for what becomes of it."""
    queue = f"scripted-{uuid4()}"
    async with Worker(
        client,
        task_queue=queue,
        workflows=[ScriptedBatch, ScriptedTask],
        activities=[scripted_chunk] if chunks else [],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_heartbeat_throttle_interval=timedelta(milliseconds=50),
    ):
        yield Script(client, batch_id_of(uuid4()), queue, Tasks(client, RPC_SECONDS))


async def states(script: Script, count: int) -> list[str]:
    """Those of the first items."""
    page, _ = await script.batches.page(script.batch_id, count)
    return [item.status.value for item in page]
