"""OrchestrateTask: one task from its start to its one final state."""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    FailureError,
    RetryState,
    TimeoutError,  # noqa: A004 - the engine's, which is the one that workflows meet
    TimeoutType,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities.call_agent import DEADLINE_EXCEEDED, AgentCalls
    from activities.resolve_plan import PlanResolver
    from orchestrator.engine import search_attributes
    from orchestrator.engine.converter import INVALID_INPUT
    from orchestrator.engine.queues import engine_priority
    from orchestrator.engine.tasks import summary
    from orchestrator.errors import PayloadTooLarge
    from orchestrator.models import (
        AgentCall,
        AgentReply,
        Attempt,
        Dispatch,
        Plan,
        Task,
        TaskOutcome,
        TaskState,
        TaskStatus,
    )
    from orchestrator.routing import WORKFLOW_TYPE
    from orchestrator.telemetry.logging import get_logger
    from workflows import options

log = get_logger(__name__)


# A payload that the engine refuses stays too large: the task fails instead of trying for ever.
@workflow.defn(name=WORKFLOW_TYPE, failure_exception_types=[PayloadTooLarge])
class OrchestrateTask:
    """Route the task if nobody did, call the agent through failures, answer for the outcome."""

    def __init__(self) -> None:
        self._state = TaskState.QUEUED
        self._task: Task | None = None
        self._plan: Plan | None = None
        self._outcome: TaskOutcome | None = None
        self._error: ApplicationError | None = None
        self._updated_at: datetime = workflow.now()
        self._course = ""

    @workflow.run
    async def run(self, task: Task | None = None) -> TaskOutcome:
        """Carry out one task.

        Raises:
            ApplicationError: the task failed; its type says why, its details hold a TaskOutcome.
            CancelledError: the task was cancelled.
        """
        if not isinstance(task, Task):
            # Only JSON is decoded into a task; bytes, say, come as they are.
            raise self._failed(
                INVALID_INPUT,
                'No input was given as a JSON object; pass {"pattern": ..., "payload": {...}}',
            )
        self._task = task
        self._plan = plan = task.plan or await self._resolve(task)
        self._announce(task, plan)
        try:
            reply = await self._call(task, plan)
        except FailureError as error:
            if _was_cancelled(error):
                self._log("task_cancelled")
                self._enter(TaskState.CANCELLED)
                raise CancelledError("The task was cancelled") from error
            raise self._failure(plan, error) from error
        return self._completed(plan, reply)

    async def _resolve(self, task: Task) -> Plan:
        try:
            return await workflow.execute_local_activity_method(
                PlanResolver.resolve_plan,
                task,
                start_to_close_timeout=options.RESOLVE_TIMEOUT,
                retry_policy=RetryPolicy(maximum_attempts=3),
            )
        except FailureError as error:
            cause = _cause(error)
            if isinstance(cause, ApplicationError):
                raise self._failed(cause.type, cause.message) from None
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

    async def _call(self, task: Task, plan: Plan) -> AgentReply:
        self._enter(TaskState.RUNNING)
        call = AgentCall(
            task_id=workflow.info().workflow_id,
            agent=plan.agent,
            endpoint=plan.endpoint,
            payload=task.payload,
            attempt_timeout=plan.attempt_timeout,
            retry=plan.retry,
            traceparent=task.traceparent,
        )
        spent = workflow.now() - workflow.info().workflow_start_time
        left = max(timedelta(seconds=plan.deadline) - spent, timedelta(milliseconds=1))
        attempt_timeout = timedelta(seconds=plan.attempt_timeout) + options.BACKSTOP
        if plan.dispatch is Dispatch.INLINE:
            return await workflow.execute_local_activity_method(
                AgentCalls.call_agent,
                call,
                schedule_to_close_timeout=left,
                start_to_close_timeout=attempt_timeout,
                retry_policy=options.retry_policy(plan.retry),
                local_retry_threshold=options.LOCAL_RETRY_THRESHOLD,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        return await workflow.execute_activity_method(
            AgentCalls.call_agent,
            call,
            task_queue=plan.task_queue,
            schedule_to_close_timeout=left,
            start_to_close_timeout=attempt_timeout,
            heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
            retry_policy=options.retry_policy(plan.retry),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"POST {plan.endpoint}",
            # A start by hand, or by a parent, carries none for the call to inherit.
            priority=engine_priority(plan.priority, task.tenant),
        )

    def _completed(self, plan: Plan, reply: AgentReply) -> TaskOutcome:
        self._enter(
            TaskState.COMPLETED, f"at attempt {reply.attempt}, which took {reply.seconds:g} s"
        )
        self._outcome = TaskOutcome(
            agent=plan.agent,
            result=reply.result,
            attempts=reply.attempt,
            execution_time=reply.seconds,
        )
        self._log("task_completed", execution_time=reply.seconds, attempts=reply.attempt)
        return self._outcome

    def _failure(self, plan: Plan, error: FailureError) -> ApplicationError:
        """The task's failure: what went wrong last, how often it was tried, why not again."""
        kind, message = _last_error(error, plan)
        attempt = _last_attempt(error)
        attempts = _attempts(error, attempt, plan)
        self._outcome = TaskOutcome(
            agent=plan.agent,
            attempts=attempts,
            execution_time=attempt.seconds if attempt else None,
        )
        if _deadline_passed(error):
            text = f"The deadline of {plan.deadline:g} s passed after {_times(attempts)}: {message}"
            kind = DEADLINE_EXCEEDED
        else:
            text = f"Failed after {_times(attempts)}: {message}"
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
            agent = self._plan.agent if self._plan else None
            log.info(event, task_id=workflow.info().workflow_id, agent=agent, **fields)

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
            agent=self._plan.agent if self._plan else None,
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
        )


def _was_cancelled(error: FailureError) -> bool:
    # A cancelled call whose worker died ends in a timeout; the wish to cancel still holds.
    return is_cancelled_exception(error) or workflow.cancellation_reason() is not None


def _cause(error: FailureError) -> BaseException | None:
    """What the engine's own frame is about; failures of inline calls come without one."""
    return error.cause if isinstance(error, ActivityError) else error


def _deadline_passed(error: FailureError) -> bool:
    cause = _cause(error)
    if isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_CLOSE:
        return True
    if isinstance(cause, ApplicationError) and cause.type == DEADLINE_EXCEEDED:
        return True
    return isinstance(error, ActivityError) and error.retry_state is RetryState.TIMEOUT


def _last_error(error: FailureError, plan: Plan) -> tuple[str, str]:
    """Type and message of what went wrong last, the cause behind a timeout first."""
    cause = _cause(error)
    if isinstance(cause, TimeoutError) and isinstance(cause.__cause__, ApplicationError):
        cause = cause.__cause__
    if isinstance(cause, ApplicationError):
        return cause.type or "CallFailed", cause.message
    if isinstance(cause, TimeoutError):
        if cause.type is TimeoutType.HEARTBEAT:
            return "WorkerLost", "the worker that made the call stopped answering"
        if cause.type is TimeoutType.START_TO_CLOSE:
            return "AgentTimedOut", "the call did not end in time"
        if _was_started(error, plan):
            return DEADLINE_EXCEEDED, "the call was still under way"
        return DEADLINE_EXCEEDED, "no worker was free to make the call"
    return type(cause).__name__, str(cause)


def _was_started(error: FailureError, plan: Plan) -> bool:
    # Inline calls have no event that says so, and no queue to wait in.
    return (
        plan.dispatch is Dispatch.INLINE
        or not isinstance(error, ActivityError)
        or bool(error.started_event_id)
    )


def _last_attempt(error: FailureError) -> Attempt | None:
    cause = _cause(error)
    while cause is not None:
        if isinstance(cause, ApplicationError) and cause.details:
            return Attempt.model_validate(cause.details[0])
        cause = cause.__cause__
    return None


def _attempts(error: FailureError, last: Attempt | None, plan: Plan) -> int:
    """How many attempts were made; a worker that died left no word of its last one."""
    if isinstance(error, ActivityError) and (
        error.retry_state is RetryState.MAXIMUM_ATTEMPTS_REACHED
    ):
        return plan.retry.max_attempts
    if last is not None:
        return last.attempt
    return 1 if _was_started(error, plan) else 0


def _times(attempts: int) -> str:
    return f"{attempts} attempt" + ("" if attempts == 1 else "s")
