"""DeadLetter: a task that failed for good, kept until somebody runs it again or gives it up."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.resolve_plan import PlanResolver
    from orchestrator.dead_letters import (
        DEAD_LETTER_WORKFLOW,
        MAX_LISTED_ERROR_CHARACTERS,
        DeadLetterEntry,
        DeadLetterOrder,
        Resolution,
        Resolved,
        cut,
        dead_letter_id,
        is_repeatable,
        outlined,
        runs_after,
        shortened,
    )
    from orchestrator.engine import search_attributes
    from orchestrator.engine.dead_letters import (
        MEMO_ATTEMPTS,
        MEMO_ERROR,
        MEMO_FAILED_AT,
        MEMO_REPEATABLE,
        MEMO_RUNS,
        REFUSED,
        RESOLVED_BEFORE,
    )
    from orchestrator.engine.queues import engine_priority
    from orchestrator.engine.record import (
        MEMO_CHOSEN_BY,
        MEMO_CREATED_AT,
        MEMO_DISPATCH,
        MEMO_EARLIER_RUNS,
    )
    from orchestrator.engine.tasks import summary
    from orchestrator.errors import PayloadTooLarge
    from orchestrator.models import Dispatch, Plan, Run, Task
    from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE
    from orchestrator.telemetry.logging import get_logger
    from workflows import options

REDRIVE_PAUSES = (0.1, 0.3, 0.6, 1.0)
"""Seconds between tries to start the task again, whose failed run may still be closing."""
BURY_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between tries to start a dead letter, whose forerunner may still be closing."""
_MAX_SUMMARY_BYTES = 380

log = get_logger(__name__)


async def bury(task: Task, plan: Plan, run: Run) -> bool:
    """Start the dead letter of the running workflow's task, and outlive a cancellation meanwhile.

    Args:
        task: as it was started.
        plan: by which it ran.
        run: how it has ended.

    Returns:
        Whether it waits there now; else the log says why it could not be kept.
    """
    info, memo = workflow.info(), dict(workflow.memo())
    created_at = created_at_of(memo) or info.workflow_start_time
    return await bury_as(info.workflow_id, task, plan, run, created_at, memo)


async def bury_as(
    task_id: str, task: Task, plan: Plan, run: Run, created_at: datetime, memo: dict[str, Any]
) -> bool:
    """The same for a task without a workflow of its own; ``memo`` is what one would carry."""
    entry = DeadLetterEntry(
        task=task,
        run=shortened(run),
        memo=memo,
        created_at=created_at,
        agent=plan.agent,
        expires=plan.dead_letter_expires,
    )
    starting = asyncio.create_task(_start_dead_letter(task_id, entry, plan))
    while not starting.done():
        # The task has failed before anybody cancelled it.
        with suppress(asyncio.CancelledError):
            await asyncio.shield(starting)
    reason = starting.result()
    if not workflow.unsafe.is_replaying():
        event = "dead_letter_lost" if reason else "dead_letter_added"
        fields = {"reason": reason} if reason else {}
        say = log.error if reason else log.info
        say(event, task_id=task_id, agent=plan.agent, error_type=run.error_type, **fields)
    return reason is None


def created_at_of(memo: Mapping[str, Any]) -> datetime | None:
    """When the task was submitted; a memo that was given by hand may hold anything."""
    try:
        return datetime.fromisoformat(memo[MEMO_CREATED_AT])
    except (KeyError, TypeError, ValueError):
        return None


async def _start_dead_letter(task_id: str, entry: DeadLetterEntry, plan: Plan) -> str | None:
    """Start it; the reason if that cannot be."""
    task, run = entry.task, entry.run
    try:
        await _start(
            DEAD_LETTER_WORKFLOW,
            entry,
            BURY_PAUSES,
            id=dead_letter_id(task_id),
            memo={
                MEMO_CREATED_AT: entry.created_at.isoformat(),
                MEMO_FAILED_AT: run.ended_at.isoformat(),
                MEMO_ERROR: cut(run.error, MAX_LISTED_ERROR_CHARACTERS),
                MEMO_ATTEMPTS: run.attempts,
                MEMO_RUNS: len(task.earlier_runs) + 1,
                MEMO_REPEATABLE: is_repeatable(plan, run),
            },
            search_attributes=search_attributes.of_dead_letter(task, plan, run.error_type),
            static_summary=_fitting(f"{summary(task, plan)}: {run.error_type}"),
        )
    except WorkflowAlreadyStartedError:
        return "a dead letter of another run of this task waits already"
    except PayloadTooLarge as error:
        return str(error)
    return None


async def _start(kind: str, given: object, pauses: tuple[float, ...], **chosen: Any) -> None:
    """Start a workflow of its own, patient with a namesake that is about to close.

    Raises:
        WorkflowAlreadyStartedError: the namesake does not close.
    """
    for pause in (*pauses, None):
        try:
            await workflow.start_child_workflow(
                kind,
                given,
                task_queue=WORKFLOW_QUEUE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                **chosen,
            )
        except WorkflowAlreadyStartedError:
            if pause is None:
                raise
            await workflow.sleep(pause)
        else:
            return


def _fitting(line: str) -> str:
    """A summary that the engine takes, which counts bytes."""
    return line.encode()[:_MAX_SUMMARY_BYTES].decode(errors="ignore")


@workflow.defn(name=DEAD_LETTER_WORKFLOW)
class DeadLetter:
    """Waits for one of three ends: redriven, discarded, expired."""

    @workflow.init
    def __init__(self, entry: DeadLetterEntry) -> None:
        self._entry = entry
        self._task_id = workflow.info().workflow_id.removeprefix(dead_letter_id(""))
        self._resolved: Resolved | None = None
        self._turn = asyncio.Lock()

    @workflow.run
    async def run(self, entry: DeadLetterEntry) -> Resolved:
        """Wait until it is resolved."""
        self._tell()
        expires = None if entry.expires is None else timedelta(seconds=entry.expires)
        try:
            await workflow.wait_condition(
                lambda: self._resolved is not None, timeout=expires, timeout_summary="expires"
            )
        except TimeoutError:
            async with self._turn:
                # A redrive that was under way when the time came goes first.
                resolved = self._resolved or self._close(Resolution.EXPIRED, None)
        else:
            resolved = self._closed()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return resolved

    @workflow.update
    async def redrive(self, order: DeadLetterOrder | None = None) -> Resolved:
        """Run the task again, under its id and by a route that is resolved anew.

        Raises:
            ApplicationError: it cannot be; the dead letter stays.
        """
        return await self._redrive(order)

    @workflow.update
    async def discard(self, order: DeadLetterOrder | None = None) -> Resolved:
        """Give the task up."""
        return await self._discard(order)

    @workflow.signal(name="redrive")
    async def redrive_by_signal(self, order: DeadLetterOrder | None = None) -> None:
        """The same for the engine's batch operations, which know no updates."""
        try:
            await self._redrive(order)
        except ApplicationError as error:
            if self._resolved is None:
                self._tell(f"**Not redriven**: {error.message}")

    @workflow.signal(name="discard")
    async def discard_by_signal(self, order: DeadLetterOrder | None = None) -> None:
        """The same for the engine's batch operations, which know no updates."""
        with suppress(ApplicationError):
            await self._discard(order)

    @workflow.query
    def entry(self) -> DeadLetterEntry:
        """The task and how it failed."""
        return self._entry

    async def _redrive(self, order: DeadLetterOrder | None) -> Resolved:
        async with self._turn:
            self._refuse_if_closed()
            await self._run_again(await self._route())
            return self._close(Resolution.REDRIVEN, order)

    async def _discard(self, order: DeadLetterOrder | None) -> Resolved:
        async with self._turn:
            self._refuse_if_closed()
            return self._close(Resolution.DISCARDED, order)

    def _refuse_if_closed(self) -> None:
        if self._resolved is not None:
            raise ApplicationError(
                f"It was {self._resolved.resolution} before",
                type=RESOLVED_BEFORE,
                non_retryable=True,
            )

    async def _route(self) -> Task:
        """The task with a new plan and this run among its earlier ones."""
        before = self._entry.task
        task = before.model_copy(
            update={
                "plan": None,
                "waited": 0.0,
                "begun": None,
                "earlier_runs": runs_after(before.earlier_runs, self._entry.run),
            }
        )
        try:
            plan = await workflow.execute_local_activity_method(
                PlanResolver.resolve_plan,
                task,
                start_to_close_timeout=options.RESOLVE_TIMEOUT,
                retry_policy=options.RESOLVE_RETRY,
            )
        except ActivityError as error:
            raise _refusal(error.cause) from None
        except ApplicationError as error:
            raise _refusal(error) from None
        return task.model_copy(update={"plan": plan})

    async def _run_again(self, task: Task) -> None:
        plan = task.plan
        assert plan is not None  # noqa: S101 - it has just been given one
        try:
            await _start(
                WORKFLOW_TYPE,
                task,
                REDRIVE_PAUSES,
                id=self._task_id,
                memo=self._memo(task, plan),
                search_attributes=search_attributes.of_task(task, plan),
                static_summary=_fitting(summary(task, plan)),
                priority=engine_priority(plan.priority, task.tenant, plan.fairness_weight),
            )
        except WorkflowAlreadyStartedError:
            raise ApplicationError(
                f"Task '{self._task_id}' is running already; cancel it, or wait until it ends",
                type=REFUSED,
                non_retryable=True,
            ) from None
        except PayloadTooLarge as error:
            raise _refusal(error) from None

    def _memo(self, task: Task, plan: Plan) -> dict[str, Any]:
        """The memo of the task's next run: as before, but for what the new plan says."""
        memo = {name: value for name, value in self._entry.memo.items() if name != MEMO_DISPATCH}
        memo[MEMO_CREATED_AT] = self._entry.created_at.isoformat()
        memo[MEMO_CHOSEN_BY] = plan.chosen_by
        memo[MEMO_EARLIER_RUNS] = outlined(task.earlier_runs)
        if plan.dispatch is Dispatch.INLINE:
            memo[MEMO_DISPATCH] = plan.dispatch
        return memo

    def _close(self, resolution: Resolution, order: DeadLetterOrder | None) -> Resolved:
        order = order or DeadLetterOrder()
        self._resolved = Resolved(resolution=resolution, reason=order.reason, by=order.by)
        by = f" by {order.by}" if order.by else ""
        reason = f": {order.reason}" if order.reason else ""
        self._tell(f"**{resolution.capitalize()}**{by}{reason}")
        if not workflow.unsafe.is_replaying():
            log.info(
                "dead_letter_resolved",
                resolution=resolution,
                task_id=self._task_id,
                agent=self._entry.agent,
                reason=order.reason,
                by=order.by,
            )
        return self._resolved

    def _closed(self) -> Resolved:
        assert self._resolved is not None  # noqa: S101 - it was waited for
        return self._resolved

    def _tell(self, news: str = "") -> None:
        """Say in the Web UI what happened and what can be done."""
        run, task = self._entry.run, self._entry.task
        error = cut(run.error, MAX_LISTED_ERROR_CHARACTERS)
        times = f" It ran {len(task.earlier_runs) + 1} times." if task.earlier_runs else ""
        lines = [
            f"Task `{self._task_id}` of **{self._entry.agent}**: {run.error_type}, {error}{times}",
            news,
        ]
        if self._resolved is None:
            lines.append(
                "Send the update `redrive` to run it again under its id, or `discard` to give it "
                'up; both take `{"reason": "...", "by": "..."}` or nothing.'
            )
            if self._entry.expires is not None:
                lines.append(f"It expires {self._entry.expires:g} s after it failed.")
        workflow.set_current_details("\n\n".join(filter(None, lines)))


def _refusal(cause: BaseException | None) -> ApplicationError:
    """Why it cannot be redriven, in the words of what refused it."""
    text = cause.message if isinstance(cause, ApplicationError) else str(cause)
    return ApplicationError(text, type=REFUSED, non_retryable=True)
