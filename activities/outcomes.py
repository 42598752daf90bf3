"""How an attempt to call an agent may end, what follows from it, and how it is told."""

from collections.abc import Callable
from http import HTTPStatus

from orchestrator.call_errors import AgentUnreachable, CallError, OutcomeUnknown, RetryableCallError
from orchestrator.errors import AgentUnavailable
from orchestrator.models import Attempt, CallFailure, RetryPlan
from orchestrator.routing import backoff_seconds
from orchestrator.telemetry.logging import get_logger

ERROR_CHARACTERS = 300
"""How much of each attempt's error is kept."""
KEPT_FAILURE_BYTES = 1500
"""Of attempts, in a failure that the engine keeps until the next one."""

SUCCESS = "success"
ACCEPTED = "accepted"
UNAVAILABLE = AgentUnavailable.__name__
WORKER_LOST = "WorkerLost"
WORKER_STOPPING = "WorkerStopping"

_STILL_DOWN = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}

log = get_logger(__name__)


def brief(failure: CallFailure) -> CallFailure:
    """The failure with only so many of the latest attempts as the engine keeps meanwhile.

    Of an activity that is tried again it leaves out the whole failure where that is over 4 KiB.
    """
    kept, size = list[Attempt](), 0
    for attempt in reversed(failure.progress.attempts):
        size += len(attempt.model_dump_json().encode())
        if size > KEPT_FAILURE_BYTES:
            break
        kept.insert(0, attempt)
    progress = failure.progress.model_copy(update={"attempts": tuple(kept)})
    return failure.model_copy(update={"progress": progress})


def never_again(error: CallError) -> CallError:
    """What became of a request to an agent that must not get it twice."""
    if not isinstance(error, RetryableCallError):
        return error
    return OutcomeUnknown(
        f"{error}; the agent is not idempotent, so it is not called again",
        status=error.status,
        excerpt=error.excerpt,
    )


def words(error: CallError) -> str:
    """The error for whoever looks at the task, with the beginning of what the agent said."""
    return f"{error}; it said: {error.excerpt}" if error.excerpt else str(error)


def log_failure(task_id: str, attempt: Attempt) -> None:
    """Log an attempt that failed."""
    log.warning(
        "attempt_failed",
        task_id=task_id,
        agent=attempt.agent,
        instance=attempt.instance,
        attempt=attempt.attempt,
        error=attempt.error,
        error_type=attempt.outcome,
        execution_time=attempt.seconds,
    )


def pause_after(
    error: RetryableCallError, retry: RetryPlan, spent: int, chance: Callable[[], float]
) -> float:
    """The pause that the agent asked for, clamped, or else the backoff; jittered."""
    if error.retry_after is not None:
        return spread(min(error.retry_after, retry.max_retry_after_seconds), retry, chance)
    return backoff_seconds(retry, spent) * (1 + (2 * chance() - 1) * retry.jitter)


def spread(seconds: float, retry: RetryPlan, chance: Callable[[], float]) -> float:
    """Jitter that never makes a pause shorter than was asked for."""
    return seconds * (1 + chance() * retry.jitter)


def still_down(error: CallError) -> bool:
    """Whether the failure is about the agent, and not about what it was asked."""
    return isinstance(error, AgentUnreachable) or error.status in _STILL_DOWN
