"""Tasks in the engine: submit, look up, wait, list, count, cancel."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DescribeWorkflowExecutionResponse,
    ListWorkflowExecutionsRequest,
)
from temporalio.client import Client
from temporalio.common import (
    TypedSearchAttributes,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.batches import is_certain, place_of
from orchestrator.dead_letters import dead_letter_id
from orchestrator.engine import search_attributes
from orchestrator.engine.batches import Batches
from orchestrator.engine.finals import Finals
from orchestrator.engine.histories import Histories, WorkflowNotFound
from orchestrator.engine.listing import STATE_BY_NAME, TaskFilter, decoded, encoded, query
from orchestrator.engine.queues import describe_queue, engine_priority
from orchestrator.engine.record import (
    MEMO_CHOSEN_BY,
    MEMO_CREATED_AT,
    MEMO_DISPATCH,
    MEMO_FINGERPRINT,
    MEMO_TRACE_ID,
    STATES,
    Blocked,
    Recorder,
    Waiting,
    waited_long,
)
from orchestrator.engine.returned import Returned
from orchestrator.engine.rpc import EAGERLY_ONCE, engine_call
from orchestrator.engine.turns import Turns
from orchestrator.errors import (
    EngineRefused,
    EngineUnavailable,
    IdempotencyConflict,
    TaskNotFound,
)
from orchestrator.models import BlockedBy, Dispatch, Plan, Task, TaskRequest, TaskState
from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE, agent_of
from orchestrator.statuses import TaskPage, TaskStatus
from orchestrator.traces import trace_id_in

QUEUE_GRACE = timedelta(seconds=1)
LETTER_BEGINS_WITHIN = timedelta(minutes=1)
"""After a task has failed for good."""
_DESCRIBES_AT_ONCE = 8


@dataclass(frozen=True)
class Submitted:
    """What became of a submission; ``created`` is False when the task existed before."""

    status: TaskStatus
    created: bool

    @classmethod
    def of(
        cls, task_id: str, agent: str | None, created_at: datetime, *, created: bool
    ) -> "Submitted":
        """The answer to a submission, the same however often it is repeated."""
        status = TaskStatus(
            task_id=task_id,
            status=TaskState.QUEUED,
            agent=agent,
            created_at=created_at,
            updated_at=created_at,
        )
        return cls(status, created)


class Tasks:
    """The engine's tasks, each call bounded by ``rpc_timeout`` seconds.

    ``block`` knows, without asking anybody, what keeps an agent's queue waiting. ``notes_builds``:
    the engine takes at the start what it would note of its own accord (search_attributes.BUILDS).
    ``returned`` knows what tasks returned that have ended in this process. Starts take their turn
    at ``starts``, where that is given.
    Items of ``batches`` are tasks as all others.

    Every method raises EngineUnavailable when the engine does not answer.
    """

    def __init__(
        self,
        client: Client,
        rpc_timeout: float,
        block: Callable[[str], Blocked | None] = lambda _: None,
        *,
        notes_builds: bool = False,
        returned: Returned | None = None,
        starts: Turns | None = None,
    ) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)
        self._block = block
        self._notes_builds = notes_builds
        self.starts = starts
        """The turns of single starts; None where none is waited for."""
        self._recorder = Recorder(client.data_converter)
        self._histories = Histories(client, rpc_timeout)
        self._finals = Finals()
        self._returned = returned or Returned()
        self.batches = Batches(client, rpc_timeout, self._own, notes_builds=notes_builds)

    async def submit(
        self,
        task: Task,
        plan: Plan,
        task_id: str,
        created_at: datetime,
        fingerprint: str | None = None,
    ) -> Submitted:
        """Start the task's workflow; one call to the engine, its first workflow task taken along.

        Args:
            task: with its plan.
            plan: the same plan.
            task_id: the workflow's id.
            created_at: when the request came.
            fingerprint: of the request, when the id was made from an idempotency key.

        Raises:
            PayloadTooLarge: the engine would refuse the input.
            IdempotencyConflict: the id exists with another fingerprint.
        """
        try:
            async with engine_call(self._deadline, self.starts):
                await self._client.start_workflow(
                    WORKFLOW_TYPE,
                    task,
                    id=task_id,
                    task_queue=WORKFLOW_QUEUE,
                    memo=_memo(task, plan, created_at, fingerprint),
                    search_attributes=self._attributes(task, plan),
                    static_summary=summary(task, plan),
                    priority=engine_priority(plan.priority, task.tenant, plan.fairness_weight),
                    rpc_timeout=self._deadline,
                    **EAGERLY_ONCE,
                )
        except WorkflowAlreadyStartedError:
            return await self.existing(task_id, fingerprint)
        except RPCError as error:
            raise EngineRefused(f"The engine refuses the task: {error.message}") from None
        return Submitted.of(task_id, plan.agent, created_at, created=True)

    def _attributes(self, task: Task, plan: Plan) -> TypedSearchAttributes:
        found = search_attributes.of_task(task, plan)
        return found.updated(search_attributes.BUILDS) if self._notes_builds else found

    async def existing(self, task_id: str, fingerprint: str | None) -> Submitted:
        """The answer that the task got when it was submitted first.

        Raises:
            TaskNotFound: it was not.
            IdempotencyConflict: the id exists with another fingerprint.
        """
        record = await self._describe(task_id)
        info = record.workflow_execution_info
        memo = await self._recorder.memo(info.memo)
        if fingerprint is None or memo.get(MEMO_FINGERPRINT) != fingerprint:
            raise IdempotencyConflict(task_id)
        head = await self._recorder.head(info)
        return Submitted.of(task_id, head.agent, head.created_at, created=False)

    async def status(self, task_id: str, wait: float = 0) -> TaskStatus:
        """The task's status; with ``wait`` seconds, as soon as it has ended, or then.

        Raises:
            TaskNotFound: no such task.
        """
        found = await self._status(task_id, wait)
        if found.dead_letter and await self._letter_is_closed(found):
            return found.model_copy(update={"dead_letter": None})
        return found

    async def _status(self, task_id: str, wait: float) -> TaskStatus:
        place = place_of(task_id)
        if place is not None and is_certain(task_id):
            return await self._batched(task_id, place, wait)
        try:
            return await self._own(task_id, wait)
        except TaskNotFound:
            if place is None:
                raise
        return await self._batched(task_id, place, wait)

    async def _letter_is_closed(self, failed: TaskStatus) -> bool:
        """Whether its dead letter waits no more: it was discarded, or has expired.

        One that is not there is about to be started, or was closed long ago and is forgotten.
        """
        try:
            record = await self._histories.describe(dead_letter_id(failed.task_id))
        except WorkflowNotFound:
            return datetime.now(UTC) - failed.updated_at > LETTER_BEGINS_WITHIN
        return record.workflow_execution_info.status in STATES

    async def _batched(self, task_id: str, place: tuple[str, int], wait: float) -> TaskStatus:
        """The status of a batch's item, which its batch knows, or a workflow of its own."""
        end = time.monotonic() + wait
        try:
            seen = await self.batches.look(*place, wait)
        except TaskNotFound:
            # An item that was redriven may be known for longer than its batch.
            return await self._own(task_id, wait)
        status, left = seen.status, end - time.monotonic()
        if seen.own and not status.status.is_final and left > 0:
            return await self._own(task_id, left)
        if not seen.own and not status.status.is_final:
            return _with_block(status, await self._blocked(seen.waiting))
        return status

    async def _own(self, task_id: str, wait: float = 0) -> TaskStatus:
        """The status of a task that has a workflow of its own."""
        if certain := self._finals.certain(task_id):
            return certain
        event = await self._closing_event(task_id, wait) if wait > 0 else None
        record = await self._describe(task_id)
        info = record.workflow_execution_info
        if info.status not in STATES:
            status, waiting = await self._recorder.open_status(record)
            return _with_block(status, await self._blocked(waiting))
        return self._finals.of(info.execution.run_id) or await self._final(info, event)

    async def _final(self, info: WorkflowExecutionInfo, event: HistoryEvent | None) -> TaskStatus:
        """The status of a task that has ended; ``event`` is its last, if it is known."""
        if outcome := self._returned.take(info):
            status = await self._recorder.completed_status(info, outcome)
            self._finals.keep(info.execution.run_id, status)
            return status
        event = event or await self._closing_event(info.execution.workflow_id, 0)
        if event is None:
            raise EngineUnavailable("The engine has closed the task but not yet its history")
        status = await self._recorder.closed_status(info, event)
        self._finals.keep(info.execution.run_id, status, event.ByteSize())
        return status

    async def _blocked(self, waiting: Waiting) -> Blocked | None:
        if waiting.blocked or not waiting.queue:
            return waiting.blocked
        blocked = self._block(agent_of(waiting.queue))
        if blocked and blocked.by is not BlockedBy.RATE_LIMIT:
            return blocked
        if not waited_long(waiting, QUEUE_GRACE):
            return None
        kind = (
            TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
            if waiting.queue == WORKFLOW_QUEUE
            else TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
        )
        async with engine_call(self._deadline):
            queue = await describe_queue(self._client, waiting.queue, self._deadline, kind)
        if not queue.has_worker:
            return Blocked(BlockedBy.NO_WORKER)
        return blocked or Blocked(BlockedBy.CAPACITY)

    async def _describe(self, task_id: str) -> DescribeWorkflowExecutionResponse:
        try:
            record = await self._histories.describe(task_id)
        except WorkflowNotFound:
            raise TaskNotFound(task_id) from None
        if record.workflow_execution_info.type.name != WORKFLOW_TYPE:
            raise TaskNotFound(task_id)
        return record

    async def _closing_event(self, task_id: str, wait: float) -> HistoryEvent | None:
        try:
            return await self._histories.closing_event(task_id, wait)
        except WorkflowNotFound:
            raise TaskNotFound(task_id) from None

    async def cancel(self, task_id: str) -> TaskStatus:
        """Ask the task to end; a task that has ended stays as it is.

        Raises:
            TaskNotFound: no such task.
        """
        status = await self.status(task_id)
        if not status.status.is_final:
            try:
                async with engine_call(self._deadline):
                    await self._client.get_workflow_handle(task_id).cancel(
                        rpc_timeout=self._deadline
                    )
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                # It ended in between, or it waits in its batch.
                if place := place_of(task_id):
                    with contextlib.suppress(TaskNotFound):
                        await self.batches.cancel_item(*place)
            status = await self.status(task_id)
        return status

    async def page(self, chosen: TaskFilter, size: int, cursor: str | None = None) -> TaskPage:
        """One page of tasks, newest first. Lists lag behind submissions by some 100 ms.

        Raises:
            InvalidCursor: the cursor is not one of ours.
        """
        request = ListWorkflowExecutionsRequest(
            namespace=self._client.namespace,
            page_size=size,
            next_page_token=decoded(cursor),
            query=query(chosen),
        )
        async with engine_call(self._deadline):
            answer = await self._client.workflow_service.list_workflow_executions(
                request, retry=True, timeout=self._deadline
            )
        turn = asyncio.Semaphore(_DESCRIBES_AT_ONCE)
        asking = [asyncio.create_task(self._item(info, turn)) for info in answer.executions]
        try:
            tasks = await asyncio.gather(*asking)
        finally:
            for each in asking:
                each.cancel()
        wanted = tuple(
            item for item in tasks if item is not None and chosen.status in {None, item.status}
        )
        return TaskPage(tasks=wanted, next_cursor=encoded(answer.next_page_token))

    async def _item(
        self, info: WorkflowExecutionInfo, turn: asyncio.Semaphore
    ) -> TaskStatus | None:
        """One item of a list; None for a task that has been deleted since."""
        if info.status in STATES:
            return await self._recorder.head(info)
        async with turn:
            # Whether an open task is queued or running, only its own record tells; and lists lag.
            try:
                record = await self._describe(info.execution.workflow_id)
            except TaskNotFound:
                return None
        current = record.workflow_execution_info
        if current.status in STATES:
            return await self._recorder.head(current)
        return (await self._recorder.open_status(record))[0]

    async def counts(self) -> dict[TaskState, int]:
        """How many tasks the engine keeps, by state; all open ones count as running."""
        async with engine_call(self._deadline):
            answer = await self._client.workflow_service.count_workflow_executions(
                CountWorkflowExecutionsRequest(
                    namespace=self._client.namespace,
                    query=f"WorkflowType = '{WORKFLOW_TYPE}' GROUP BY ExecutionStatus",
                ),
                retry=True,
                timeout=self._deadline,
            )
        counts = dict.fromkeys(TaskState, 0)
        for group in answer.groups:
            name = json.loads(group.group_values[0].data)
            counts[STATE_BY_NAME.get(name, TaskState.RUNNING)] += group.count
        return counts


def _memo(task: Task, plan: Plan, created_at: datetime, fingerprint: str | None) -> dict[str, str]:
    memo = {MEMO_CREATED_AT: created_at.isoformat(), MEMO_CHOSEN_BY: plan.chosen_by}
    if plan.dispatch is Dispatch.INLINE:
        memo[MEMO_DISPATCH] = plan.dispatch
    if trace_id := trace_id_in(task.traceparent):
        memo[MEMO_TRACE_ID] = trace_id
    if fingerprint is not None:
        memo[MEMO_FINGERPRINT] = fingerprint
    return memo


def summary(task: TaskRequest, plan: Plan) -> str:
    """The one line that stands for a task in the Web UI and ``temporal workflow list``."""
    return f"{task.pattern or ', '.join(task.capabilities)} → {plan.agent}"


def _with_block(status: TaskStatus, blocked: Blocked | None) -> TaskStatus:
    if blocked is None:
        return status
    return status.model_copy(update={"blocked_by": blocked.by, "until": blocked.until})
