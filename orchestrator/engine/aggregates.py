"""Aggregates in the engine: start, look up, wait, redrive, cancel.

What an aggregate has come to stands in its own history, so that looking needs no worker.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.aggregate_status import AggregateState, AggregateStatus
from orchestrator.aggregates import (
    AGGREGATE_WORKFLOW,
    REDRIVE,
    Aggregation,
    Counts,
    FanOut,
    aggregate_id_of,
    aggregate_workflow_id,
    fan_out_of,
    joined_ids,
    redrive_of,
)
from orchestrator.batches import MEMO_TALLY
from orchestrator.engine import search_attributes
from orchestrator.engine.aggregate_course import MAX_RESULT_BYTES, Course
from orchestrator.engine.histories import Histories, WorkflowNotFound
from orchestrator.engine.record import (
    MEMO_CREATED_AT,
    MEMO_FINGERPRINT,
    STATES,
    Recorder,
    moment,
)
from orchestrator.engine.rpc import EAGERLY_ONCE, engine_call
from orchestrator.engine.search_attributes import value_of
from orchestrator.errors import (
    AggregateNotFound,
    EngineRefused,
    IdempotencyConflict,
    OrderRefused,
)
from orchestrator.joining import Aggregate, gathered, join
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE

LEFT_OUT = "Some results are left out, since they are too large; GET /status has each"
UNREAD = "Some reports cannot be read, whose tasks count as pending; GET /status has each"

_STATES: dict[TaskState, AggregateState] = {
    TaskState.COMPLETED: AggregateState.COMPLETED,
    TaskState.FAILED: AggregateState.FAILED,
    TaskState.CANCELLED: AggregateState.CANCELLED,
}


@dataclass(frozen=True)
class _Given:
    """What an aggregate was asked to join."""

    aggregation: Aggregation
    fan_out: FanOut | None

    @property
    def total(self) -> int:
        return len(joined_ids(self.aggregation, self.fan_out))


@dataclass(frozen=True)
class SubmittedAggregate:
    """What became of an aggregate handed in; ``created`` is False when it existed before."""

    created_at: datetime
    created: bool


class Aggregates:
    """The engine's aggregates, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer. An aggregate's id is the
    one that the API gave it, or the id of the workflow that somebody started by hand.
    """

    def __init__(
        self, client: Client, rpc_timeout: float, most_bytes: int = MAX_RESULT_BYTES
    ) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)
        self._most_bytes = most_bytes
        self._histories = Histories(client, rpc_timeout)
        self._recorder = Recorder(client.data_converter)

    async def submit(
        self,
        aggregate_id: str,
        aggregation: Aggregation,
        created_at: datetime,
        fingerprint: str | None = None,
    ) -> SubmittedAggregate:
        """Start an aggregate's workflow, or find it.

        Args:
            aggregate_id: its id.
            aggregation: what it joins.
            created_at: when the request came.
            fingerprint: of the request, when the id was made from an idempotency key.

        Raises:
            PayloadTooLarge: the engine would refuse the input.
            IdempotencyConflict: the id exists with another fingerprint.
        """
        memo = {MEMO_CREATED_AT: created_at.isoformat()}
        if fingerprint is not None:
            memo[MEMO_FINGERPRINT] = fingerprint
        try:
            async with engine_call(self._deadline):
                await self._client.start_workflow(
                    AGGREGATE_WORKFLOW,
                    aggregation,
                    id=aggregate_workflow_id(aggregate_id),
                    task_queue=WORKFLOW_QUEUE,
                    memo=memo,
                    search_attributes=search_attributes.of_tenant(aggregation.tenant),
                    static_summary=_summary(aggregation),
                    rpc_timeout=self._deadline,
                    **EAGERLY_ONCE,
                )
        except WorkflowAlreadyStartedError:
            return await self.existing(aggregate_id, fingerprint)
        except RPCError as error:
            raise EngineRefused(f"The engine refuses the aggregate: {error.message}") from None
        return SubmittedAggregate(created_at, created=True)

    async def existing(self, aggregate_id: str, fingerprint: str | None) -> SubmittedAggregate:
        """The aggregate that was asked for before, by the same request.

        Raises:
            AggregateNotFound: it was not.
            IdempotencyConflict: the id exists with another fingerprint.
        """
        info = await self._find(aggregate_id)
        memo = await self._recorder.memo(info.memo)
        if fingerprint is None or memo.get(MEMO_FINGERPRINT) != fingerprint:
            raise IdempotencyConflict(aggregate_id, "aggregate")
        return SubmittedAggregate(_created_at(info, None, memo), created=False)

    async def tenant(self, aggregate_id: str) -> str | None:
        """Whose it is; None where it is several's.

        Raises:
            AggregateNotFound: no such aggregate.
        """
        return _tenant(await self._find(aggregate_id))

    async def status(self, aggregate_id: str, wait: float = 0) -> AggregateStatus:
        """What it has come to; with ``wait`` seconds, as soon as it has ended, or then.

        Raises:
            AggregateNotFound: no such aggregate.
        """
        info = await self._find(aggregate_id)
        if wait > 0 and info.status not in STATES:
            await self._histories.closing_event(info.execution.workflow_id, wait)
            info = await self._find(aggregate_id)
        try:
            return await self._status(info)
        except WorkflowNotFound:
            raise AggregateNotFound(aggregate_id) from None

    async def progress(self, aggregate_id: str, wait: float = 0) -> AggregateStatus:
        """The numbers alone while it is open; with ``wait`` seconds, once it has ended, or then.

        Raises:
            AggregateNotFound: no such aggregate.
        """
        info = await self._find(aggregate_id)
        if wait > 0 and info.status not in STATES:
            await self._histories.closing_event(info.execution.workflow_id, wait)
            info = await self._find(aggregate_id)
        memo = await self._recorder.memo(info.memo)
        if info.status in STATES or MEMO_TALLY not in memo:
            return await self.status(aggregate_id)
        counts = Counts.model_validate(memo[MEMO_TALLY])
        created_at = _created_at(info, None, memo)
        return AggregateStatus(
            aggregate_id=aggregate_id,
            status=AggregateState.RUNNING,
            total_tasks=counts.total,
            **counts.model_dump(exclude={"total"}),
            pending=counts.pending,
            created_at=created_at,
            updated_at=created_at,
        )

    async def _status(self, info: WorkflowExecutionInfo) -> AggregateStatus:
        given, course = (
            await self._given(info),
            Course(self._client.data_converter, self._most_bytes),
        )
        for run_id in reversed(await self._histories.runs(info.execution)):
            run = WorkflowExecution(workflow_id=info.execution.workflow_id, run_id=run_id)
            # The earlier runs have ended: whatever they show is what they are.
            last = info.history_length if run_id == info.execution.run_id else _ALL
            async for event in self._histories.events(run, last):
                await course.add(event)
        memo = await self._recorder.memo(info.memo)
        # Thousands of results take their time, in which others are answered.
        return await asyncio.to_thread(_answer, info, given, course, memo)

    async def redrive(self, aggregate_id: str) -> AggregateStatus:
        """Run those of its tasks again that are dead letters, and join them anew.

        Raises:
            AggregateNotFound: no such aggregate.
            OrderRefused: it was started with what is no aggregate.
        """
        info = await self._find(aggregate_id)
        given = await self._given(info)
        if given is None:
            raise OrderRefused(
                f"Aggregate '{aggregate_id}' cannot be redriven: its input does not fit", "conflict"
            )
        memo = await self._recorder.memo(info.memo)
        created_at = _created_at(info, given, memo)
        async with engine_call(self._deadline):
            await self._client.start_workflow(
                AGGREGATE_WORKFLOW,
                redrive_of(given.aggregation, given.fan_out),
                id=info.execution.workflow_id,
                task_queue=WORKFLOW_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                start_signal=REDRIVE,
                memo={MEMO_CREATED_AT: created_at.isoformat()}
                | {name: memo[name] for name in (MEMO_FINGERPRINT,) if name in memo},
                search_attributes=search_attributes.of_tenant(given.aggregation.tenant),
                static_summary=_summary(given.aggregation),
                rpc_timeout=self._deadline,
            )
        return await self.status(aggregate_id)

    async def cancel(self, aggregate_id: str) -> AggregateStatus:
        """Join no more, and cancel what the aggregate itself has started; one that has ended stays.

        Raises:
            AggregateNotFound: no such aggregate.
        """
        info = await self._find(aggregate_id)
        if info.status not in STATES:
            try:
                async with engine_call(self._deadline):
                    await self._client.get_workflow_handle(info.execution.workflow_id).cancel(
                        rpc_timeout=self._deadline
                    )
            except RPCError as error:
                # It ended in between.
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
        return await self.status(aggregate_id)

    async def _find(self, aggregate_id: str) -> WorkflowExecutionInfo:
        """The latest run of its workflow."""
        for workflow_id in (aggregate_workflow_id(aggregate_id), aggregate_id):
            try:
                info = (await self._histories.describe(workflow_id)).workflow_execution_info
            except WorkflowNotFound:
                continue
            if info.type.name == AGGREGATE_WORKFLOW:
                return info
        raise AggregateNotFound(aggregate_id)

    async def _given(self, info: WorkflowExecutionInfo) -> _Given | None:
        """What it was asked to join; None where somebody's input is none of that."""
        event = await self._histories.first(info.execution)
        started = event.workflow_execution_started_event_attributes
        try:
            [found] = await self._client.data_converter.decode(
                started.input.payloads, [Aggregation]
            )
        except (ApplicationError, ValueError):
            return None
        if not isinstance(found, Aggregation):
            return None
        first_run_id = started.first_execution_run_id
        return _Given(found, fan_out_of(found, info.execution.workflow_id, first_run_id))


_ALL = 2**62


def _answer(
    info: WorkflowExecutionInfo, given: _Given | None, course: Course, memo: dict[str, Any]
) -> AggregateStatus:
    outcomes = gathered(course.reports)
    aggregation = given.aggregation if given else Aggregation()
    found = join(outcomes, aggregation.policy, given.total if given else 0)
    created_at = _created_at(info, given, memo)
    closed = info.status in STATES
    end = course.end if closed else None
    state = _STATES[STATES[info.status]] if closed else AggregateState.RUNNING
    return AggregateStatus(
        aggregate_id=aggregate_id_of(info.execution.workflow_id),
        status=end.status if end else state,
        total_tasks=found.counts.total,
        completed=found.counts.completed,
        failed=found.counts.failed,
        cancelled=found.counts.cancelled,
        pending=found.counts.pending,
        results=found.results,
        errors=found.errors,
        merged=found.merged,
        conflicts=found.conflicts,
        reason=end.reason if end else None,
        note=_note(found, course),
        created_at=created_at,
        updated_at=moment(info.close_time) if closed else course.updated_at or created_at,
        tenant=_tenant(info),
    )


def _tenant(info: WorkflowExecutionInfo) -> str | None:
    return value_of(info.search_attributes, search_attributes.TENANT)


def _note(found: Aggregate, course: Course) -> str | None:
    left_out = LEFT_OUT if any(each.left_out for each in found.results) else None
    unread = UNREAD if course.unread else None
    return ". ".join(filter(None, (left_out, unread, found.note))) or None


def _created_at(
    info: WorkflowExecutionInfo, given: _Given | None, memo: dict[str, Any]
) -> datetime:
    """When it was asked for; of one that was started by hand its later runs are told."""
    if created := memo.get(MEMO_CREATED_AT):
        return datetime.fromisoformat(created)
    told = given.aggregation.created_at if given else None
    return told or moment(info.start_time)


def _summary(aggregation: Aggregation) -> str:
    """The one line that stands for an aggregate in the Web UI and ``temporal workflow list``."""
    fan_out = aggregation.fan_out.total if aggregation.fan_out else aggregation.to_start
    return f"join of {len(aggregation.task_ids) + fan_out} tasks"
