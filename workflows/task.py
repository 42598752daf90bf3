"""OrchestrateTask: one task from its start to its one final state."""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, CancelledError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities.resolve_plan import PlanResolver
    from orchestrator.dead_letters import outlined
    from orchestrator.engine import search_attributes
    from orchestrator.engine.converter import INVALID_INPUT
    from orchestrator.engine.record import MEMO_CHOSEN_BY
    from orchestrator.engine.tasks import summary
    from orchestrator.errors import PayloadTooLarge
    from orchestrator.models import (
        DEADLINE_EXCEEDED,
        AgentReply,
        Plan,
        Run,
        Task,
        TaskOutcome,
        TaskState,
    )
    from orchestrator.routing import WORKFLOW_TYPE
    from orchestrator.statuses import TaskStatus
    from orchestrator.telemetry.logging import get_logger
    from orchestrator.values import MAX_PRIORITY, MIN_PRIORITY
    from workflows import failures, options, patches
    from workflows.agent_calls import Calls, Exhausted
    from workflows.callback import call_back
    from workflows.dead_letter import bury, created_at_of
    from workflows.failures import Failed
    from workflows.telling import ended, queued, tell

log = get_logger(__name__)


# A payload that the engine refuses stays too large: the task fails instead of trying for ever.
@workflow.defn(name=WORKFLOW_TYPE, failure_exception_types=[PayloadTooLarge])
class OrchestrateTask:
    """Route the task if nobody did, call the agent through failures, answer for the outcome."""

    def __init__(self) -> None:
        self._state = TaskState.QUEUED
        self._task: Task | None = None
        self._plan: Plan | None = None
        self._calls: Calls | None = None
        self._priority: int | None = None
        self._outcome: TaskOutcome | None = None
        self._error: ApplicationError | None = None
        self._updated_at: datetime = workflow.now()
        self._course = ""

    @workflow.run
    async def run(self, task: Task | None = None) -> TaskOutcome:
        """Carry out one task, and have its receiver told of the end, if it has one.

        Raises:
            ApplicationError: the task failed; its type says why, its details hold a TaskOutcome.
            CancelledError: the task was cancelled.
        """
        try:
            return await self._run(task)
        finally:
            if self._state.is_final and self._task and self._task.callback_url:
                await self._call_back(self._task, str(self._task.callback_url))

    async def _call_back(self, task: Task, url: str) -> None:
        if workflow.patched(patches.CALLBACKS):
            await call_back(url, self._recorded(), len(task.earlier_runs))

    async def _run(self, task: Task | None) -> TaskOutcome:
        if not isinstance(task, Task):
            # Only JSON is decoded into a task; bytes, say, come as they are.
            raise self._failed(
                INVALID_INPUT,
                'No input was given as a JSON object; pass {"pattern": ..., "payload": {...}}',
            )
        self._task = task
        self._plan = task.plan or await self._resolve(task)
        if self._priority is not None:
            self._give_priority(self._priority)
        plan = self._plan
        self._announce(task, plan)
        self._calls = calls = Calls(task, plan)
        try:
            await tell(queued(task, plan))
            self._enter(TaskState.RUNNING)
            return await self._carry_out(task, calls)
        except asyncio.CancelledError:
            if workflow.cancellation_reason() is None:
                raise  # the worker lets go of it
            # It came while the broker was told of something.
            raise await self._cancelled(task, calls) from None

    async def _carry_out(self, task: Task, calls: Calls) -> TaskOutcome:
        try:
            reply = await calls.make()
        except Exhausted as error:
            failure = await self._failure(task, calls, error.failed)
            await self._tell_end(task, calls)
            raise failure from error.__cause__
        except FailureError as error:
            if not failures.was_cancelled(error):
                raise
            raise await self._cancelled(task, calls) from error
        outcome = self._completed(calls, reply)
        await self._tell_end(task, calls)
        return outcome

    async def _cancelled(self, task: Task, calls: Calls) -> CancelledError:
        self._log("task_cancelled")
        self._enter(TaskState.CANCELLED)
        await self._tell_end(task, calls)
        return CancelledError("The task was cancelled")

    async def _tell_end(self, task: Task, calls: Calls) -> None:
        """Tell the broker how it ended, which no cancellation changes any more."""
        if calls.plan.events or task.reply:
            with suppress(asyncio.CancelledError):
                await tell(ended(task, calls.plan, self.status()))

    async def _resolve(self, task: Task) -> Plan:
        try:
            return await workflow.execute_local_activity_method(
                PlanResolver.resolve_plan,
                task,
                start_to_close_timeout=options.RESOLVE_TIMEOUT,
                retry_policy=options.RESOLVE_RETRY,
            )
        except FailureError as error:
            cause = failures.cause_of(error)
            if isinstance(cause, ApplicationError):
                raise self._failed(cause.type, cause.message) from None
            if failures.was_cancelled(error):
                self._enter(TaskState.CANCELLED)
            raise

    def _announce(self, task: Task, plan: Plan) -> None:
        """Let the Web UI and the command line find and explain the task."""
        self._course = (
            f"**{summary(task, plan)}**, chosen by {plan.chosen_by}; priority {plan.priority}, "
            f"deadline {plan.deadline:g} s, up to {plan.retry.max_attempts} attempts of "
            f"{plan.attempt_timeout:g} s"
        )
        known = workflow.info().typed_search_attributes
        if known.get(search_attributes.AGENT) is None:
            attributes = search_attributes.of_task(task, plan)
            workflow.upsert_search_attributes(
                [pair.key.value_set(pair.value) for pair in attributes.search_attributes]
            )
            workflow.upsert_memo({MEMO_CHOSEN_BY: plan.chosen_by})

    def _completed(self, calls: Calls, reply: AgentReply) -> TaskOutcome:
        self._enter(
            TaskState.COMPLETED, f"at attempt {calls.attempts}, which took {reply.seconds:g} s"
        )
        self._outcome = TaskOutcome(
            agent=calls.agent,
            result=reply.result,
            attempts=calls.attempts,
            execution_time=reply.seconds,
            attempt_history=calls.attempt_history,
        )
        self._log("task_completed", execution_time=reply.seconds, attempts=calls.attempts)
        return self._outcome

    async def _failure(self, task: Task, calls: Calls, failed: Failed) -> ApplicationError:
        """The task's failure: what went wrong last, how often it was tried, why not again."""
        times = f"{calls.attempts} attempt" + ("" if calls.attempts == 1 else "s")
        kind, text = failed.kind, f"Failed after {times}: {failed.message}"
        if failed.deadline_passed:
            kind = DEADLINE_EXCEEDED
            over = "passed" if calls.out_of_time else "left no time for another attempt"
            text = (
                f"The deadline of {calls.plan.deadline:g} s {over} after {times}: {failed.message}"
            )
        history = calls.attempt_history
        buried = calls.plan.dead_letter and failed.is_for_dead_letters
        if buried:
            run = Run(
                error=text,
                error_type=kind,
                attempts=calls.attempts,
                ended_at=workflow.now(),
                attempt_history=history,
            )
            buried = await bury(task, calls.plan, run)
        self._outcome = TaskOutcome(
            agent=calls.agent,
            attempts=calls.attempts,
            execution_time=history[-1].seconds if history else None,
            attempt_history=history,
            dead_letter=buried,
        )
        return self._failed(kind, text)

    def _failed(self, kind: str | None, text: str) -> ApplicationError:
        self._enter(TaskState.FAILED, text)
        # The text may quote the agent, which no log does; call_agent has logged each attempt.
        attempts = self._outcome.attempts if self._outcome else 0
        self._log("task_failed", error_type=kind, attempts=attempts)
        details = (self._outcome,) if self._outcome else ()
        self._error = ApplicationError(text, *details, type=kind, non_retryable=True)
        return self._error

    def _enter(self, state: TaskState, news: str = "") -> None:
        self._state = state
        self._updated_at = workflow.now()
        workflow.set_current_details(f"{self._course}\n\n**{state.capitalize()}** {news}".strip())

    def _log(self, event: str, **fields: object) -> None:
        if not workflow.unsafe.is_replaying():
            agent = self._calls.agent if self._calls else None
            log.info(event, task_id=workflow.info().workflow_id, agent=agent, **fields)

    @workflow.signal
    def set_priority(self, priority: int) -> None:
        """Calls that are yet to be made go by this priority; what waits already, the engine moves.

        A priority outside 1 to 5 is passed over.
        """
        if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
            return
        self._priority = priority
        if self._plan is not None:
            self._give_priority(priority)

    def _give_priority(self, priority: int) -> None:
        assert self._plan is not None  # noqa: S101 - both callers have seen to it
        self._plan = self._plan.model_copy(update={"priority": priority})
        if self._calls is not None:
            self._calls.plan = self._plan
        workflow.upsert_search_attributes([search_attributes.PRIORITY.value_set(priority)])

    def _recorded(self) -> TaskStatus:
        """The status as GET /status shows it once the engine has the end."""
        assert self._task is not None  # noqa: S101 - its receiver is to be told
        further: dict[str, Any] = {"created_at": created_at_of(workflow.memo())}
        if self._task.batch is not None:
            further["batch_id"] = self._task.batch
        if self._task.earlier_runs:
            further["earlier_runs"] = tuple(
                map(Run.model_validate, outlined(self._task.earlier_runs))
            )
        known = {name: value for name, value in further.items() if value is not None}
        return self.status().model_copy(update=known)

    @workflow.query
    def status(self) -> TaskStatus:
        """The task as its workflow knows it.

        Only the engine counts the attempts under way and knows whether a call still waits in its
        queue: until it has ended, such a task is ``running`` here and may be ``queued`` in GET
        /status.
        """
        info, outcome, error = workflow.info(), self._outcome, self._error
        return TaskStatus(
            task_id=info.workflow_id,
            status=self._state,
            agent=self._calls.agent if self._calls else None,
            pattern=self._task.pattern if self._task else None,
            priority=self._plan.priority if self._plan else None,
            tenant=self._task.tenant if self._task else None,
            **(
                {"result": outcome.result} if self._state is TaskState.COMPLETED and outcome else {}
            ),
            error=error.message if error else None,
            error_type=error.type if error else None,
            created_at=info.workflow_start_time,
            updated_at=self._updated_at,
            execution_time=outcome.execution_time if outcome else None,
            attempts=outcome.attempts if outcome else None,
            attempt_history=outcome.attempt_history if outcome else None,
            chosen_by=self._plan.chosen_by if self._plan else None,
            dead_letter=(outcome.dead_letter or None) if outcome else None,
        )
