"""AggregateTasks: many tasks, joined into one answer."""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    CancelledError,
    FailureError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities.join_tasks import TaskJoiner
    from orchestrator.aggregate_status import AggregateState, AggregateStatus
    from orchestrator.aggregates import (
        AGGREGATE_WORKFLOW,
        DEFAULT_DEADLINE,
        REDRIVE,
        REPORT_BYTES,
        AggregatePolicy,
        Aggregation,
        Carried,
        Counts,
        FanOut,
        Joined,
        JoinReport,
        JoinWatch,
        TaskSet,
        aggregate_id_of,
        fan_out_of,
        joined_ids,
        size_of,
    )
    from orchestrator.batches import MEMO_TALLY, Batch
    from orchestrator.errors import PayloadTooLarge
    from orchestrator.joining import (
        Verdict,
        cancels_rest,
        is_over,
        join,
        progress,
        shortfall,
        verdict,
        with_results,
    )
    from orchestrator.models import TaskState
    from orchestrator.telemetry.logging import get_logger
    from workflows import failures, options
    from workflows.aggregate_batch import OwnBatch
    from workflows.full_histories import is_full_anyhow

EVERY = AggregatePolicy()
"""Wait for all, however they end."""
SETTLE_SECONDS = 20.0
"""How long tasks that were cancelled are waited for, so that they count as what they became."""
LEFT_OUT = "The results are too many to travel together; GET /aggregate/{} has them"

log = get_logger(__name__)


# A payload that the engine refuses stays too large: fail instead of trying for ever.
@workflow.defn(name=AGGREGATE_WORKFLOW, failure_exception_types=[PayloadTooLarge])
class AggregateTasks:
    """Starts what is to be started, watches all until the condition holds, answers with it."""

    def __init__(self) -> None:
        self._given = Aggregation()
        self._fan_out: FanOut | None = None
        self._batch: OwnBatch | None = None
        self._ids: tuple[str, ...] = ()
        self._open: set[int] = set()
        self._failed: set[int] = set()
        """What a redrive is about: the positions that have failed, or may have."""
        self._counts = Counts(total=0)
        self._outcomes: dict[int, Joined] | None = {}
        """None when they are too large to be kept, or an earlier run had them."""
        self._bytes = 0
        self._state = AggregateState.RUNNING
        self._reason: str | None = None
        self._redrive_wanted = self._redriven = False
        self._deadline = self._updated_at = workflow.now()

    @workflow.run
    async def run(self, given: Aggregation | None = None) -> AggregateStatus:
        """Join the tasks; the outcome is data, whether the condition came to hold or not.

        Raises:
            ApplicationError: of type InvalidInput: there is nothing to be joined, or tasks that
                no agent serves.
            CancelledError: the aggregate was cancelled, and the tasks it had started with it.
        """
        if not isinstance(given, Aggregation) or not (
            given.task_ids or given.to_start or given.fan_out
        ):
            raise failures.invalid(
                'Nothing to join was given; pass {"task_ids": ["...", "..."]}, '
                '{"tasks": [{"pattern": ..., "payload": {...}}]}, or both'
            )
        self._take_in(given)
        # Before the clock: in this order they stand in the histories of aggregates under way.
        self._start_tasks()
        left = max(timedelta(), self._deadline - workflow.now())
        clock = asyncio.create_task(workflow.sleep(left))
        try:
            if self._batch is not None:
                await self._batch.begun()
            late = await self._join(clock)
        except (asyncio.CancelledError, FailureError) as error:
            if not is_cancelled_exception(error):
                raise
            await self._cancel_batch()
            self._enter(AggregateState.CANCELLED, "The aggregate was cancelled")
            raise CancelledError("The aggregate was cancelled") from None
        finally:
            clock.cancel()
        return self._ended(late=late)

    def _take_in(self, given: Aggregation) -> None:
        info, carried = workflow.info(), given.carried
        self._given = given
        self._fan_out = fan_out_of(given, info.workflow_id, info.first_execution_run_id)
        self._batch = OwnBatch(self._fan_out) if self._fan_out else None
        self._ids = joined_ids(given, self._fan_out)
        every = range(len(self._ids))
        self._redrive_wanted = self._redrive_wanted or given.redrive
        self._redriven = given.redrive
        if carried is None:
            seconds = given.deadline or DEFAULT_DEADLINE
            self._open, self._counts = set(every), Counts(total=len(every))
            self._failed = set(every) if given.redrive else set()
            self._deadline = workflow.now() + timedelta(seconds=seconds)
        else:
            self._open, self._failed = set(carried.open), set(carried.failed)
            self._counts, self._deadline = carried.counts, carried.deadline
            self._redriven, self._outcomes = carried.redriven, None
        self._tell()

    def _start_tasks(self) -> None:
        given = self._given
        if self._batch is not None and given.fan_out is None:
            tasks = given.batch or Batch(tasks=given.tasks, created_at=self._created_at)
            self._batch.start(tasks, self._given.tenant)

    async def _join(self, clock: asyncio.Task[None]) -> bool:
        """Until the condition is decided; True if the deadline came before that."""
        policy = self._given.policy
        while True:
            if self._redrive_wanted:
                await self._redrive(clock)
            while not (over := is_over(policy, self._counts)) and not clock.done():
                await self._watch(policy, clock, heeds_redrive=True)
                if self._redrive_wanted:
                    await self._redrive(clock)
                if is_full_anyhow():
                    self._carry_on()
            if cancels_rest(policy, self._counts):
                await self._cancel_rest()
            if not self._redrive_wanted:
                return not over

    async def _watch(
        self, policy: AggregatePolicy, clock: asyncio.Task[None], *, heeds_redrive: bool
    ) -> None:
        """Wait for one report, or until it is time to stop, and take in what there is."""
        positions = sorted(self._open)
        watching = workflow.start_activity_method(
            TaskJoiner.join_tasks,
            JoinWatch(
                task_ids=tuple(self._ids[position] for position in positions),
                positions=tuple(positions),
                counts=self._counts,
                policy=policy,
                batch_id=self._batch.batch_id if self._batch else None,
                knows_only=self._given.knows_only,
            ),
            start_to_close_timeout=options.LONGEST_JOIN,
            heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
            retry_policy=options.PATIENT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await self._report_of(watching, clock, heeds_redrive=heeds_redrive)

    async def _redrive(self, clock: asyncio.Task[None]) -> None:
        """Run again what has failed and can be; what cannot be is joined as failed once more."""
        self._redrive_wanted = False
        if not self._failed:
            return
        self._redriven = True
        redriving = workflow.start_activity_method(
            TaskJoiner.redrive_tasks,
            self._chosen(self._failed),
            start_to_close_timeout=options.LONGEST_JOIN,
            heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
            retry_policy=options.PATIENT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await self._report_of(redriving, clock, heeds_redrive=False)

    async def _report_of(
        self,
        working: workflow.ActivityHandle[JoinReport],
        clock: asyncio.Task[None],
        *,
        heeds_redrive: bool,
    ) -> None:
        """Take in an activity's report; cut it short when something else is to be done."""

        def is_time() -> bool:
            redrive = heeds_redrive and self._redrive_wanted
            return working.done() or clock.done() or redrive or self._refusal is not None

        try:
            await workflow.wait_condition(is_time)
        except asyncio.CancelledError:
            self._take(await _cut_short(working))
            raise
        self._take(await _cut_short(working))
        if workflow.cancellation_reason() is not None:
            # It went to the activity alone, which this was waiting for.
            raise asyncio.CancelledError
        if self._refusal is not None:
            raise failures.invalid(self._refusal) from None

    @property
    def _refusal(self) -> str | None:
        """Why none of its own tasks were taken, if that is so."""
        return self._batch.refusal if self._batch else None

    def _take(self, report: JoinReport) -> None:
        if self._batch is not None and report.refusal is not None:
            self._batch.refusal = report.refusal
        for position in report.reopened:
            self._failed.discard(position)
            if position not in self._open:
                self._open.add(position)
                self._counts = self._counts.with_fewer_failed(1)
                self._forget(position)
        news = [each for each in report.outcomes if each.position in self._open]
        for outcome in news:
            self._open.discard(outcome.position)
            if outcome.state is TaskState.FAILED:
                self._failed.add(outcome.position)
            self._keep(outcome)
        self._counts = self._counts.with_ends(each.state for each in news)
        if news or report.reopened:
            self._tell()

    def _keep(self, outcome: Joined) -> None:
        if self._outcomes is not None:
            self._outcomes[outcome.position] = outcome
            self._bytes += size_of(outcome)
            if self._bytes > REPORT_BYTES:
                self._outcomes = None

    def _forget(self, position: int) -> None:
        if self._outcomes is not None and (outcome := self._outcomes.pop(position, None)):
            self._bytes -= size_of(outcome)

    async def _cancel_rest(self) -> None:
        """Cancel what is open, and see what becomes of it."""
        await self._cancel_batch()
        named = len(self._ids) - (self._fan_out.total if self._fan_out else 0)
        # The batch cancels its own, but not those that were redriven.
        rest = {each for each in self._open if each < named or self._redriven}
        if rest:
            await workflow.execute_activity_method(
                TaskJoiner.cancel_tasks,
                self._chosen(rest),
                start_to_close_timeout=options.LONGEST_JOIN,
                heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
                retry_policy=options.PATIENT,
            )
        clock = asyncio.create_task(workflow.sleep(SETTLE_SECONDS))
        try:
            while self._open and not clock.done():
                await self._watch(EVERY, clock, heeds_redrive=False)
        finally:
            clock.cancel()

    async def _cancel_batch(self) -> None:
        if self._batch is not None:
            await self._batch.cancel()

    def _chosen(self, positions: set[int]) -> TaskSet:
        chosen = tuple(sorted(positions))
        return TaskSet(
            task_ids=tuple(self._ids[each] for each in chosen),
            positions=chosen,
            knows_only=self._given.knows_only,
        )

    def _carry_on(self) -> None:
        """Go on as a new run with a short history."""
        carried = Carried(
            counts=self._counts,
            open=tuple(sorted(self._open)),
            failed=tuple(sorted(self._failed)),
            deadline=self._deadline,
            redriven=self._redriven,
        )
        rest = {
            "tasks": (),
            "batch": None,
            "fan_out": self._fan_out,
            "redrive": self._redrive_wanted,
            "created_at": self._created_at,
            "carried": carried,
        }
        workflow.continue_as_new(self._given.model_copy(update=rest), memo=dict(workflow.memo()))

    def _ended(self, *, late: bool) -> AggregateStatus:
        policy, counts = self._given.policy, self._counts
        if verdict(policy, counts) is Verdict.MET:
            self._enter(AggregateState.COMPLETED)
        elif late:
            seconds = self._given.deadline or DEFAULT_DEADLINE
            self._enter(
                AggregateState.FAILED,
                f"The deadline of {seconds:g} s passed with {counts.pending} of {counts.total} "
                "tasks open",
            )
        else:
            self._enter(AggregateState.FAILED, shortfall(policy, counts))
        if not workflow.unsafe.is_replaying():
            log.info(
                "aggregate_ended",
                aggregate_id=aggregate_id_of(workflow.info().workflow_id),
                status=self._state,
                **counts.model_dump(),
            )
        return self._whole()

    def _whole(self) -> AggregateStatus:
        """The answer with its results, where they are not too large."""
        status = self.status()
        if self._outcomes is not None:
            joined = join(self._outcomes, self._given.policy, self._counts.total)
            whole = with_results(status, joined)
            if size_of(whole) <= REPORT_BYTES:
                return whole
        return status.model_copy(update={"note": LEFT_OUT.format(status.aggregate_id)})

    @workflow.signal(name=REDRIVE)
    def redrive(self) -> None:
        """Run the failed tasks again, as far as they can be, and go on joining."""
        self._redrive_wanted = True

    @workflow.query
    def status(self) -> AggregateStatus:
        """How far it has come, without the results."""
        counts = self._counts
        return AggregateStatus(
            aggregate_id=aggregate_id_of(workflow.info().workflow_id),
            status=self._state,
            total_tasks=counts.total,
            completed=counts.completed,
            failed=counts.failed,
            cancelled=counts.cancelled,
            pending=counts.pending,
            reason=self._reason,
            created_at=self._created_at,
            updated_at=self._updated_at,
        )

    @property
    def _created_at(self) -> datetime:
        return self._given.created_at or workflow.info().workflow_start_time

    def _enter(self, state: AggregateState, reason: str | None = None) -> None:
        self._state, self._reason = state, reason
        self._tell()

    def _tell(self) -> None:
        """Show how far it has come, in the Web UI and in the memo."""
        counts, policy = self._counts, self._given.policy
        self._updated_at = workflow.now()
        details = progress(self._state, self._reason, policy, counts, self._deadline)
        workflow.set_current_details(details)
        tally = counts.model_dump()
        if workflow.memo().get(MEMO_TALLY) != tally:
            workflow.upsert_memo({MEMO_TALLY: tally})


async def _cut_short(working: workflow.ActivityHandle[JoinReport]) -> JoinReport:
    """What an activity reports, by itself or when it is asked to stop."""
    if working.done():
        return working.result()
    working.cancel()
    try:
        return await working
    except ActivityError:
        # It had not begun, or its worker is lost.
        return JoinReport()
