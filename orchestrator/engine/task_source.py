"""A task as live streams follow it: through its batch, if it is an item of one, and its runs."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import Client

from orchestrator.batches import place_of
from orchestrator.engine.histories import LONG_POLL_SECONDS, Histories, WorkflowNotFound
from orchestrator.engine.record import MEMO_EARLIER_RUNS, STATES
from orchestrator.engine.run_events import RunEvents
from orchestrator.engine.run_reading import has_begun
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import EngineUnavailable, TaskNotFound
from orchestrator.events import IN_BATCH, Cursor, LiveEvent, Moment, TaskEventKind, live
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_TYPE
from orchestrator.statuses import TaskStatus

ENGINE_PAUSE_SECONDS = 1.0
"""Before the engine is asked again that did not answer."""
CLOSING_PAUSE_SECONDS = 0.05
BEGIN_WAIT_SECONDS, END_WAIT_SECONDS = 1.0, 30.0
"""How long a look at an item waits for its end: before it has begun, and then."""
_QUEUED, _STARTED, _BURIED, _ENDED = (Moment(number) for number in range(1, 5))
_KINDS = {
    TaskState.COMPLETED: TaskEventKind.COMPLETED,
    TaskState.FAILED: TaskEventKind.FAILED,
    TaskState.CANCELLED: TaskEventKind.CANCELLED,
}
_NAMING = (
    "task_id",
    "agent",
    "pattern",
    "priority",
    "tenant",
    "created_at",
    "chosen_by",
    "batch_id",
    "trace_id",
)


class TaskSource:
    """A task: an item within its batch, then the latest run of its own workflow, and those after.

    An engine that is away is waited for.
    """

    def __init__(self, client: Client, tasks: Tasks, rpc_timeout: float, task_id: str) -> None:
        self._tasks = tasks
        self._converter = client.data_converter
        self._histories = Histories(client, rpc_timeout)
        self._task_id = task_id
        self._place = place_of(task_id)

    async def begin(self) -> bool:
        """Whether the task exists, and has ended."""
        return (await self._tasks.status(self._task_id)).status.is_final

    async def events(self) -> AsyncGenerator[LiveEvent, None]:
        """Of every run, one after another."""
        described = await self._own()
        if self._place is not None and (described is None or _is_first_of_item(described)):
            async with aclosing(self._in_batch(*self._place)) as events:
                async for event in events:
                    yield event
            described = await self._own()
        while described is not None:
            run_id = described.workflow_execution_info.execution.run_id
            async with aclosing(self.run(described)) as events:
                async for event in events:
                    yield event
            described = await self._own()
            if described and described.workflow_execution_info.execution.run_id == run_id:
                return

    async def rest_of(self, cursor: Cursor) -> list[LiveEvent]:
        """What an earlier run, which somebody had followed, had yet to tell."""
        try:
            latest = await self._histories.describe(self._task_id)
            if latest.workflow_execution_info.execution.run_id == cursor.run:
                return []
            described = await self._histories.describe(self._task_id, cursor.run)
        except WorkflowNotFound:
            return []
        known = described.workflow_execution_info
        if known.type.name != WORKFLOW_TYPE or not _is_over(described):
            return []
        async with aclosing(self.run(described, cursor.at)) as events:
            return [event async for event in events]

    async def run(
        self, described: DescribeWorkflowExecutionResponse, last: Moment | None = None
    ) -> AsyncGenerator[LiveEvent, None]:
        """The events of one run until it has ended; what the engine has deleted is left out."""
        missed = 0
        while missed < 2:  # noqa: PLR2004 - a token may be out of date, a run may not
            course = RunEvents(self._converter, described, last)
            try:
                async with aclosing(self._course(course, described)) as events:
                    async for event in events:
                        missed = 0
                        yield event
            except EngineUnavailable:
                await asyncio.sleep(ENGINE_PAUSE_SECONDS)
            except WorkflowNotFound:
                missed += 1
            else:
                return
            # Read anew from the start, since nobody knows what was missed.
            last = course.last

    async def _course(
        self, course: RunEvents, described: DescribeWorkflowExecutionResponse
    ) -> AsyncGenerator[LiveEvent, None]:
        execution, token = described.workflow_execution_info.execution, b""
        polling = asyncio.create_task(self._histories.news(execution, token, LONG_POLL_SECONDS))
        looked_at = time.monotonic()
        try:
            while True:
                pause = course.pause
                await asyncio.wait({polling}, timeout=pause)
                if polling.done():
                    found = polling.result()
                    for event in found[0] if found else ():
                        for told in await course.take(event):
                            yield told
                    token = found[1] if found else token
                    if course.closing is not None:
                        break
                    polling = asyncio.create_task(
                        self._histories.news(execution, token, LONG_POLL_SECONDS)
                    )
                if course.pause is not None and time.monotonic() - looked_at >= course.pause:
                    looked_at = time.monotonic()
                    for told in await course.look(
                        await self._histories.describe(execution.workflow_id, execution.run_id)
                    ):
                        yield told
        finally:
            polling.cancel()
        for told in await course.end(await self._closed(execution.workflow_id, execution.run_id)):
            yield told

    async def _closed(self, workflow_id: str, run_id: str) -> DescribeWorkflowExecutionResponse:
        """The run, whose history has its last event."""
        while True:
            described = await self._histories.describe(workflow_id, run_id)
            if _is_over(described):
                return described
            await asyncio.sleep(CLOSING_PAUSE_SECONDS)

    async def _own(self) -> DescribeWorkflowExecutionResponse | None:
        """The latest run of the task's own workflow, if it has one."""
        while True:
            try:
                described = await self._histories.describe(self._task_id)
            except EngineUnavailable:
                await asyncio.sleep(ENGINE_PAUSE_SECONDS)
            except WorkflowNotFound:
                return None
            else:
                is_task = described.workflow_execution_info.type.name == WORKFLOW_TYPE
                return described if is_task else None

    async def _in_batch(self, batch_id: str, position: int) -> AsyncGenerator[LiveEvent, None]:
        """What becomes of an item until it has ended, or goes on as a workflow of its own."""
        told, wait = Moment(0), 0.0
        while True:
            try:
                seen = await self._tasks.batches.look(batch_id, position, wait)
            except EngineUnavailable:
                await asyncio.sleep(ENGINE_PAUSE_SECONDS)
                continue
            except TaskNotFound:
                return
            begun = not seen.own or await self._has_begun()
            for at, kind, status in _happened(seen.status, own=seen.own, begun=begun):
                if at > told:
                    told = at
                    yield live(Cursor(IN_BATCH, at), kind, status)
            if seen.own or seen.status.status.is_final:
                return
            wait = BEGIN_WAIT_SECONDS if told < _STARTED else END_WAIT_SECONDS

    async def _has_begun(self) -> bool:
        """Whether an item was tried in its batch before it became a workflow of its own."""
        described = await self._own()
        if described is None:
            return False
        try:
            first = await self._histories.first(described.workflow_execution_info.execution)
        except (EngineUnavailable, WorkflowNotFound):
            return False
        return await has_begun(self._converter, first)


def _is_first_of_item(described: DescribeWorkflowExecutionResponse) -> bool:
    """Whether the run may follow on what its batch has done, rather than on an earlier run."""
    return MEMO_EARLIER_RUNS not in described.workflow_execution_info.memo.fields


def _happened(
    status: TaskStatus, *, own: bool, begun: bool
) -> list[tuple[Moment, TaskEventKind, TaskStatus]]:
    """What has happened to an item within its batch, by what it is now.

    Args:
        status: of the item.
        own: a workflow of its own tells what it is.
        begun: it was tried in its batch, where ``own``.
    """
    named = {name: getattr(status, name) for name in _NAMING}
    queued = TaskStatus(**named, status=TaskState.QUEUED, updated_at=status.created_at)
    running = TaskStatus(**named, status=TaskState.RUNNING, updated_at=status.updated_at)
    happened = [(_QUEUED, TaskEventKind.QUEUED, queued)]
    if begun if own else (status.status is TaskState.RUNNING or status.attempts):
        happened.append((_STARTED, TaskEventKind.STARTED, running))
    if own or not status.status.is_final:
        return happened
    if status.dead_letter:
        buried = running.model_copy(update={"dead_letter": True})
        happened.append((_BURIED, TaskEventKind.DEAD_LETTERED, buried))
    return [*happened, (_ENDED, _KINDS[status.status], status)]


def _is_over(described: DescribeWorkflowExecutionResponse) -> bool:
    """Whether the run has ended."""
    return described.workflow_execution_info.status in STATES
