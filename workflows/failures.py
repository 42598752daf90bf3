"""What the failure of a call says: why it failed, whether for good, how often it was tried."""

from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    RetryState,
    TimeoutError,  # noqa: A004 - the engine's, which is the one that workflows meet
    TimeoutType,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities.outcomes import UNAVAILABLE, WORKER_LOST
    from orchestrator.call_errors import OutcomeUnknown
    from orchestrator.engine.converter import INVALID_INPUT
    from orchestrator.models import DEADLINE_EXCEEDED, Attempt, CallFailure, Progress

STILL_WAITING = (
    "the call was still waiting in the agent's queue (no worker took it, or the agent took no call)"
)


def was_cancelled(error: FailureError) -> bool:
    """Whether the task was cancelled: also when its worker died, and the call just timed out."""
    return is_cancelled_exception(error) or workflow.cancellation_reason() is not None


def cause_of(error: FailureError) -> BaseException | None:
    """What the engine's own frame is about; failures of inline calls come without one."""
    return error.cause if isinstance(error, ActivityError) else error


@dataclass(frozen=True)
class Failed:
    """A call's failure.

    Args:
        kind: the type of what went wrong last.
        message: what went wrong last, for people.
        details: what the activity said; None where none of its dispatches could say anything.
        deadline_passed: the task's time is up.
        unavailable: the agent took no call, so another may be asked.
        was_started: at least one dispatch was begun.
    """

    kind: str
    message: str
    details: CallFailure | None
    deadline_passed: bool
    unavailable: bool
    was_started: bool

    @property
    def attempts(self) -> int:
        """How many attempts were made; a worker that died left no word of its last one."""
        if self.details is not None:
            return self.details.attempts
        return 1 if self.was_started else 0

    @property
    def attempt_history(self) -> tuple[Attempt, ...]:
        """The attempts that are known of."""
        return self.details.progress.attempts if self.details else ()

    @property
    def exhausted(self) -> bool:
        """Whether every attempt of the agent was made, none with an answer."""
        return self.details is not None and self.details.exhausted

    @property
    def is_for_dead_letters(self) -> bool:
        """Whether the task may succeed if it is run again, later."""
        return (
            self.exhausted
            or self.deadline_passed
            or self.kind in {OutcomeUnknown.__name__, WORKER_LOST}
        )


def read(error: FailureError, *, idempotent: bool = True) -> Failed:
    """The failure of one call_agent, by the engine's error.

    What an agent that is not idempotent was asked by a worker that was lost, it may have done.
    """
    cause = cause_of(error)
    timeout = cause.type if isinstance(cause, TimeoutError) else None
    # Behind a timeout stands what the last attempt had failed with.
    behind = cause.__cause__ if isinstance(cause, TimeoutError) else cause
    last = behind if isinstance(behind, ApplicationError) else None
    details = _whole(_details(last), cause)
    # Inline calls have no event that says so, and no queue to wait in.
    was_started = not (isinstance(error, ActivityError) and error.scheduled_event_id) or bool(
        error.started_event_id
    )
    kind, message = _words(cause, last, was_started=was_started)
    if timeout in {TimeoutType.HEARTBEAT, TimeoutType.START_TO_CLOSE} and not idempotent:
        kind = OutcomeUnknown.__name__
    retry_state = error.retry_state if isinstance(error, ActivityError) else None
    return Failed(
        kind=kind,
        message=message,
        details=details,
        deadline_passed=timeout is TimeoutType.SCHEDULE_TO_CLOSE
        or retry_state is RetryState.TIMEOUT,
        unavailable=timeout is TimeoutType.SCHEDULE_TO_START
        or (timeout is None and kind == UNAVAILABLE),
        was_started=was_started,
    )


def _details(last: ApplicationError | None) -> CallFailure | None:
    said = last.details[0] if last and last.details else None
    # An error that the activity did not foresee says nothing, or something else.
    known = isinstance(said, dict) and "progress" in said
    return CallFailure.model_validate(said) if known else None


def _whole(details: CallFailure | None, cause: BaseException | None) -> CallFailure | None:
    """With all attempts that were left word of; what stands behind a timeout is brief."""
    left = cause.last_heartbeat_details if isinstance(cause, TimeoutError) else ()
    if details is None or not left or "attempts" not in left[0]:
        return details
    return details.model_copy(update={"progress": Progress.model_validate(left[0])})


def _words(
    cause: BaseException | None, last: ApplicationError | None, *, was_started: bool
) -> tuple[str, str]:
    """Type and message of what went wrong last."""
    if last is not None:
        return last.type or "CallFailed", last.message
    if isinstance(cause, TimeoutError):
        if cause.type is TimeoutType.HEARTBEAT:
            return WORKER_LOST, "the worker that made the call stopped answering"
        if cause.type is TimeoutType.START_TO_CLOSE:
            return "AgentTimedOut", "the call did not end in time"
        if was_started:
            return DEADLINE_EXCEEDED, "the call was still under way"
        return DEADLINE_EXCEEDED, STILL_WAITING
    return type(cause).__name__, str(cause)


def invalid(text: str) -> ApplicationError:
    """The input of a workflow is none that it could carry out, however often it is tried."""
    return ApplicationError(text, type=INVALID_INPUT, non_retryable=True)
