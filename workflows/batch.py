"""TaskBatch: many tasks, carried out in chunks, each item to its one final state."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities.chunk_course import BEGIN_SECONDS
    from activities.run_chunk import ChunkCalls
    from orchestrator.batches import (
        BATCH_WORKFLOW,
        CANCEL_ITEMS,
        MEMO_STARTS,
        MEMO_TALLY,
        RECORD,
        RELEASE,
        UNWANTED,
        Batch,
        BatchPlan,
        BatchTally,
        Chunk,
        ChunkReport,
        ItemOutcome,
        Parts,
        Unwanted,
        item_id,
    )
    from orchestrator.engine import search_attributes
    from orchestrator.engine.queues import engine_priority
    from orchestrator.engine.record import MEMO_CREATED_AT
    from orchestrator.engine.tasks import summary
    from orchestrator.errors import PayloadTooLarge
    from orchestrator.models import Begun, Plan, TaskState
    from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE, led_by
    from orchestrator.telemetry.logging import get_logger
    from workflows import failures, options
    from workflows.batch_burial import bury_items, memo_of_item
    from workflows.batch_callbacks import Receivers
    from workflows.batch_cancellation import UnderWay, told_before, untried
    from workflows.batch_items import Items
    from workflows.batch_news import ItemNews
    from workflows.batch_parts import be_released, end_of, follow
    from workflows.batch_planning import planned
    from workflows.batch_progress import Shown, details
    from workflows.full_histories import is_full

MIN_WEIGHT = 0.001
"""The least that the engine takes for a tenant's weight."""

log = get_logger(__name__)


@workflow.defn(name=BATCH_WORKFLOW, failure_exception_types=[PayloadTooLarge])
class TaskBatch:
    """Groups what waits by plan, calls the agents by chunks, and counts how the items end."""

    def __init__(self) -> None:
        self._items: Items | None = None
        self._batch = Batch()
        self._batch_id = ""
        self._created_at = workflow.now()
        self._parts_tally = BatchTally()
        self._running: list[asyncio.Task[None]] = []
        self._shown = Shown(BatchTally(), workflow.now())
        self._unwanted: list[int] = []
        """Positions that were cancelled before the items were known."""
        self._under_way = UnderWay()
        self._news = ItemNews("", None)
        self._released = False
        self._receivers = Receivers("")

    @workflow.run
    async def run(self, batch: Batch | None = None) -> BatchTally:
        """Carry out every item.

        Raises:
            ApplicationError: the input cannot be carried out, or was never handed in as a whole.
            CancelledError: the batch was cancelled; what had ended stays as it is.
        """
        if not isinstance(batch, Batch):
            raise failures.invalid(
                'No input was given as a JSON object; pass {"tasks": [{"pattern": ..., '
                '"payload": {...}}]}'
            )
        items = self._take_in(batch if batch.items else await planned(batch))
        leads = batch.part == 0 and len(batch.starts) > 1
        further = Parts(batch_id=self._batch_id, count=len(batch.starts))
        parts = asyncio.create_task(follow(further)) if leads else None
        try:
            if batch.part and batch.tally is None:
                await be_released(lambda: self._released)
            if batch.tally is None:
                await self._news.queued(items, self._created_at)
            await self._carry_out(items)
            if parts:
                self._parts_tally = await end_of(parts)
        except asyncio.CancelledError:
            await self._cut_off(items, parts)
            raise CancelledError("The batch was cancelled") from None
        self._tell(ended=True)
        self._log("batch_ended")
        return items.tally.plus(self._parts_tally)

    def _take_in(self, batch: Batch) -> Items:
        info = workflow.info()
        self._batch_id = batch.batch_id or info.workflow_id
        self._created_at = batch.created_at or info.workflow_start_time
        items = self._items = Items(batch, self._batch_id, self._created_at)
        self._batch = batch.model_copy(update={"items": (), "chosen": (), "tasks": None})
        self._shown = Shown(items.tally, self._shown.at)
        if MEMO_TALLY not in workflow.memo():
            workflow.upsert_memo({MEMO_STARTS: list(batch.starts), MEMO_TALLY: items.tally})
        self._news = ItemNews(self._batch_id, batch.traceparent)
        self._receivers = Receivers(self._batch_id)
        items.cancel(self._unwanted)
        self._tell()
        return items

    async def _carry_out(self, items: Items) -> None:
        """Until nothing waits and nothing runs, be it by a new run."""
        while True:
            if not is_full(items.singles):
                self._launch(items)
            if telling := self._receivers.next(items):
                self._begin(telling)
            if not self._running:
                break
            await workflow.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for ended in [each for each in self._running if each.done()]:
                self._running.remove(ended)
                ended.result()
            self._tell()
            if items.ended:
                self._begin(self._news.ended(items))
        await self._tell_all(items)
        if items.are_left:
            self._tell(ended=True)
            # What was upserted would not be carried over by itself.
            created_at = self._created_at.isoformat()
            memo = {**workflow.memo(), MEMO_CREATED_AT: created_at, MEMO_TALLY: items.tally}
            workflow.continue_as_new(items.rest(), memo=memo)

    async def _tell_all(self, items: Items) -> None:
        """Tell all there is to tell, and what comes to an end by signals meanwhile."""
        while True:
            await workflow.wait_condition(workflow.all_handlers_finished)
            items.drop_unwanted()
            if not items.are_to_be_told:
                return
            await self._receivers.tell_all(items)
            await self._news.ended(items)

    def _launch(self, items: Items) -> None:
        """Begin as much of what waits as may be under way at once."""
        while one := items.next_alone():
            self._begin(self._go_alone(items, *one))
        while some := items.next_chunk():
            self._begin(self._run_chunk(items, *some))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._running.append(asyncio.create_task(work))

    async def _run_chunk(
        self, items: Items, chosen: int, entry: BatchPlan, positions: tuple[int, ...]
    ) -> None:
        try:
            plan, report = await self._called(items, entry, positions)
            items.give_back(chosen, report.left)
            for each in report.unfinished:
                items.go_on(chosen, plan, each)
            for position in report.cancelled:
                items.end(position, TaskState.CANCELLED)
            await self._settle(items, plan, report.outcomes)
        except FailureError as error:
            # Cancelled before it was begun: what is still wanted waits anew.
            if not is_cancelled_exception(error):
                raise
            items.give_back(chosen, positions)
        finally:
            items.chunk_ended(chosen)

    async def _called(
        self, items: Items, entry: BatchPlan, positions: tuple[int, ...]
    ) -> tuple[Plan, ChunkReport]:
        """The report of the first of the plan's agents that takes calls, and the plan it is of."""
        routes = range(len(entry.plan.routes)) if entry.plan.fallbacks else ()
        choices = [(led_by(entry.plan, place), False) for place in routes]
        for plan, wait in (*choices, (entry.plan, True)):
            try:
                return plan, await self._call_chunk(items, entry, plan, positions, wait=wait)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                if report := told_before(plan, positions, error):
                    return plan, report
                if not failures.read(error).unavailable:
                    return plan, _all_alone(plan, positions)
        # It was waited for, as long as there was time.
        return entry.plan, _all_alone(entry.plan, positions)

    async def _call_chunk(
        self,
        items: Items,
        entry: BatchPlan,
        plan: Plan,
        positions: tuple[int, ...],
        *,
        wait: bool,
    ) -> ChunkReport:
        chunk = Chunk(
            batch_id=self._batch_id,
            plan=plan,
            strict=entry.strict,
            positions=positions,
            items=tuple(map(items.text, positions)),
            created_at=self._created_at,
            traceparent=self._batch.traceparent,
            wait=wait,
            paid=self._batch.coalesced,
            asks=self._under_way.chunks_ask,
        )
        # A chunk counts among the tenants' calls as many as it holds.
        weight = max(MIN_WEIGHT, plan.fairness_weight / len(positions))
        handle = workflow.start_activity_method(
            ChunkCalls.run_chunk,
            chunk,
            task_queue=plan.task_queue,
            schedule_to_close_timeout=self._time_left(entry),
            schedule_to_start_timeout=None if wait else options.FALLBACK_AFTER,
            start_to_close_timeout=timedelta(seconds=BEGIN_SECONDS + plan.attempt_timeout)
            + options.BACKSTOP,
            heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
            retry_policy=options.CHUNK_RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"{len(positions)} x POST {plan.endpoint}",
            priority=engine_priority(plan.priority, entry.tenant, weight),
        )
        return await self._under_way.report(handle, positions)

    def _time_left(self, entry: BatchPlan) -> timedelta | None:
        """Until the items must have ended, where that counts from the batch's start.

        The chunk ends them by itself if a worker has it; what none took goes on alone, to end.
        """
        if not entry.strict:
            return None
        spent = workflow.now() - self._created_at
        left = timedelta(seconds=entry.plan.deadline) - spent
        return max(left, timedelta()) + options.BACKSTOP

    async def _settle(self, items: Items, plan: Plan, outcomes: Sequence[ItemOutcome]) -> None:
        """Count how items have ended, each once, and keep those that may be run again."""
        buried = []
        for each in outcomes:
            if each.dead_letter and items.is_open(each.position):
                buried.append((each, items.task(plan, each.position, workflow.now())))
            items.end(each.position, each.state, each)
        burying = asyncio.create_task(bury_items(self._batch_id, self._created_at, plan, buried))
        while not burying.done():
            # They have failed before anybody cancelled the batch.
            with suppress(asyncio.CancelledError):
                await asyncio.shield(burying)
        burying.result()

    async def _go_alone(self, items: Items, plan: Plan, position: int, begun: Begun | None) -> None:
        """Carry out an item as a task of its own, under its id."""
        task = items.task(plan, position, workflow.now(), begun)
        self._under_way.goes_alone(position)
        state = TaskState.FAILED
        try:
            await workflow.execute_child_workflow(
                WORKFLOW_TYPE,
                task,
                id=item_id(self._batch_id, position),
                task_queue=WORKFLOW_QUEUE,
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                memo=memo_of_item(task, plan, self._created_at),
                search_attributes=search_attributes.of_task(task, plan),
                static_summary=summary(task, plan),
                priority=engine_priority(plan.priority, task.tenant, plan.fairness_weight),
            )
            state = TaskState.COMPLETED
        except WorkflowAlreadyStartedError:
            self._log("batch_item_exists", position=position)
        except (ChildWorkflowError, asyncio.CancelledError) as error:
            if is_cancelled_exception(error):
                state = TaskState.CANCELLED
        self._under_way.has_ended(position)
        items.end(position, state)

    async def _cut_off(self, items: Items, parts: asyncio.Task[BatchTally] | None) -> None:
        """End what is under way, and count the rest as cancelled."""
        # What has ended in this very step is left to end, or its report would be lost.
        await workflow.wait_condition(lambda: True)
        for each in (*self._running, *([parts] if parts else [])):
            each.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await workflow.wait_condition(workflow.all_handlers_finished)
        items.cancel_all()
        await self._receivers.tell_all(items)
        await self._news.ended(items)
        self._tell(ended=True, cut_off=True)
        self._log("batch_cancelled")
        if parts:
            await asyncio.gather(parts, return_exceptions=True)

    @workflow.signal(name=RECORD)
    async def record(self, report: ChunkReport) -> None:
        """Outcomes that a chunk's report has no room for."""
        items = self._items
        if items and (plan := _plan_of(items, report)):
            await self._settle(items, plan, report.outcomes)
            if self._batch.coalesced:
                self._tell(recorded=True)

    @workflow.signal(name=CANCEL_ITEMS)
    async def cancel_items(self, positions: list[int]) -> None:
        """Cancel items; calls of theirs that are in flight are cut off."""
        items = self._items
        if items is None:
            self._unwanted += positions
            return
        items.cancel(positions)
        self._tell()
        await self._under_way.cancel(items, positions)

    @workflow.query(name=UNWANTED)
    def unwanted(self, positions: list[int]) -> Unwanted:
        """Which of these items, which a chunk has in hand, are cancelled."""
        found = self._items.unwanted_among(positions) if self._items else ()
        everything = workflow.cancellation_reason() is not None
        return Unwanted(everything=everything, positions=found)

    @workflow.signal(name=RELEASE)
    def release(self) -> None:
        """Let a further part begin: the batch was handed in as a whole."""
        self._released = True

    @workflow.query
    def status(self) -> BatchTally:
        """How many items have ended, and how; of the further parts, once they have all ended."""
        return self._tally.plus(self._parts_tally)

    @property
    def _tally(self) -> BatchTally:
        return self._items.tally if self._items else BatchTally()

    def _tell(self, *, ended: bool = False, cut_off: bool = False, recorded: bool = False) -> None:
        """Say in the Web UI, and in what GET /batches reads, how far the batch has come."""
        tally, parts = self._tally, len(self._batch.starts)
        place = f"part {self._batch.part + 1} of {parts}" if parts > 1 else ""
        workflow.set_current_details(details(tally, place))
        # Coalesced batches are many, and over in a moment: at their end the results tell.
        hurries = not self._batch.coalesced or cut_off
        if self._shown.is_due(tally, ended=ended, recorded=recorded, hurries=hurries):
            self._shown = Shown(tally, workflow.now())
            workflow.upsert_memo({MEMO_TALLY: tally})

    def _log(self, event: str, **fields: object) -> None:
        if not workflow.unsafe.is_replaying():
            log.info(event, batch_id=self._batch_id, **self._tally.model_dump(), **fields)


def _plan_of(items: Items, report: ChunkReport) -> Plan | None:
    """The plan of a chunk whose outcomes these are; None where all of them are known."""
    news = (each.position for each in report.outcomes if items.is_open(each.position))
    first = next(news, None)
    return None if first is None else items.plan_of(first, report.agent)


def _all_alone(plan: Plan, positions: tuple[int, ...]) -> ChunkReport:
    """What stands for the report of a chunk that could not give one."""
    return ChunkReport(agent=plan.agent, unfinished=tuple(untried(positions)))
