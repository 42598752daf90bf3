"""One attempt to call an agent: lease an instance, send, report the outcome to the engine."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.heartbeats import HEARTBEAT_SECONDS
from activities.late_calls import answer_by, answer_id_of, completion_header, located
from activities.outcomes import (
    ACCEPTED,
    ERROR_CHARACTERS,
    SUCCESS,
    UNAVAILABLE,
    WORKER_LOST,
    WORKER_STOPPING,
    brief,
    log_failure,
    never_again,
    pause_after,
    spread,
    still_down,
    words,
)
from activities.progress import Course
from orchestrator.call_errors import AgentUnreachable, CallError, OutcomeUnknown, RetryableCallError
from orchestrator.completions import CompletionUrls
from orchestrator.errors import AgentUnavailable
from orchestrator.messaging.events import Event, EventType, News
from orchestrator.messaging.outbox import Outbox
from orchestrator.models import (
    Accepted,
    AgentCall,
    AgentReply,
    Attempt,
    BlockedBy,
    CallFailure,
    Progress,
)
from orchestrator.resilience.pool import Lease, Pools
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger
from orchestrator.traces import traceparent
from orchestrator.transports import AgentRequest, AgentResponse, Transport

LOOK_AGAIN_SECONDS = 5.0
"""When to ask for an agent again of which nobody knows when it will be available."""


log = get_logger(__name__)


@dataclass
class _Try:
    """What is known of the attempt under way."""

    call: AgentCall
    course: Course
    began: float
    lease: Lease | None = None
    answer_id: str | None = None
    """Set where the agent may answer later."""

    def ended(self, outcome: str, status: int | None = None, error: str | None = None) -> Attempt:
        """The attempt as the engine keeps it."""
        seconds = round(time.perf_counter() - self.began, 6)
        metrics.agent_call(self.call.agent, outcome, seconds)
        return Attempt(
            attempt=self.course.number,
            agent=self.call.agent,
            instance=self.lease.instance if self.lease else None,
            outcome=outcome,
            seconds=seconds,
            status=status,
            at=datetime.now(UTC) - timedelta(seconds=seconds),
            error=error,
        )


class AgentCalls:
    """The activity with what it needs: the pools of instances, the transport, headers by agent."""

    def __init__(
        self,
        pools: Pools,
        transport: Transport,
        headers: Mapping[str, Mapping[str, str]],
        chance: Callable[[], float] = random.random,
        completions: CompletionUrls | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self._completions = completions
        self._outbox = outbox
        self._pools = pools
        self._transport = transport
        self._headers = headers
        self._chance = chance

    @activity.defn
    async def call_agent(self, call: AgentCall) -> AgentReply:
        """Make one attempt, unless the agent is not available or may not be called again.

        Raises:
            ApplicationError: typed after the call error; its details hold a CallFailure.
        """
        course = Course(call)
        refuse_needless(call, course)
        current = _Try(call, course, time.perf_counter())
        try:
            response = await self._send(current)
        except AgentUnavailable as error:
            raise self._wait(current, error) from None
        except CallError as error:
            raise self._failure(current, error) from None
        except asyncio.CancelledError:
            if _worker_stops():
                raise _interrupted(current) from None
            raise
        except Exception:
            log.exception("attempt_broke", task_id=call.task_id, agent=call.agent)
            raise
        return _reply(current, response)

    def _tell(self, current: _Try, kind: EventType, **data: object) -> None:
        """Tell the broker of the attempt, beside the call."""
        call = current.call
        if not call.events or self._outbox is None:
            return
        event = Event.of_task(
            kind,
            call.task_id,
            activity.info().workflow_run_id or "",
            call.agent,
            datetime.now(UTC),
            {"attempt": current.course.number, **data},
            number=current.course.number,
            traceparent=call.traceparent,
        )
        self._outbox.tell(News(events=(event,)))

    async def _send(self, current: _Try) -> AgentResponse:
        call, course = current.call, current.course
        pool = self._pools.of_agent(call.agent)
        tried = course.tried(call.agent)
        with pool.lease(call.endpoint, tried, call.attempt_timeout) as current.lease:
            metrics.dispatch(call.agent, seconds_waited())
            if course.follows_lost:
                metrics.agent_call_retry(call.agent, WORKER_LOST)
            self._tell(current, EventType.STARTED, instance=current.lease.instance)
            async with _heartbeats(course.progress):
                request = self._request(current, current.lease.url)
                response = await self._transport.send(request)
                if current.answer_id and response.status == HTTPStatus.ACCEPTED:
                    response = located(response, request, call.late)
                return response

    def _request(self, current: _Try, url: str) -> AgentRequest:
        call = current.call
        info, number = activity.info(), current.course.number
        timeout = _seconds_left(info, call.attempt_timeout)
        current.answer_id = answer_id_of(call.agent, number, call.late, self._completions)
        return AgentRequest(
            agent=call.agent,
            url=url,
            payload=call.payload,
            timeout=timeout,
            headers={
                **self._headers.get(call.agent, {}),
                **call_headers(call.task_id, number, timeout, call.traceparent),
                **completion_header(
                    self._completions,
                    call.task_id,
                    current.answer_id,
                    call.late,
                    answer_by(_deadline(info, call.attempt_timeout), timeout, call.late),
                ),
            },
        )

    def _wait(self, current: _Try, error: AgentUnavailable) -> ApplicationError:
        """Nothing was sent: come again when the agent may be available."""
        seconds = LOOK_AGAIN_SECONDS if error.retry_after is None else error.retry_after
        metrics.agent_call_wait(error.agent, error.blocked_by)
        return _failed(
            str(error),
            current.course.wait(
                pause=spread(seconds, current.call.retry, self._chance), blocked_by=error.blocked_by
            ),
            UNAVAILABLE,
            final=not current.call.wait,
        )

    def _failure(self, current: _Try, error: CallError) -> ApplicationError:
        call, course = current.call, current.course
        if not call.idempotent and not isinstance(error, AgentUnreachable):
            error = never_again(error)
        kind = type(error).__name__
        attempt = current.ended(kind, error.status, str(error)[:ERROR_CHARACTERS])
        log_failure(call.task_id, attempt)
        text = words(error)
        if not isinstance(error, RetryableCallError):
            return _failed(text, course.failure(attempt), kind)
        seconds = pause_after(error, call.retry, current.course.spent, self._chance)
        pause = {"pause": seconds, "blocked_by": BlockedBy.RETRY_BACKOFF}
        is_trial = current.lease is not None and current.lease.trial and still_down(error)
        if not is_trial and course.spent >= call.retry.max_attempts:
            return _failed(text, course.failure(attempt, exhausted=True), kind)
        told = {"error": attempt.error, "error_type": kind, "retry_in": round(seconds, 3)}
        self._tell(current, EventType.RETRYING, **told)
        metrics.agent_call_retry(call.agent, kind)
        if is_trial:
            # The breaker's trial says what was known before: it costs the task nothing.
            return _failed(text, course.wait(attempt, **pause), kind, final=False)
        return _failed(text, course.failure(attempt, retryable=True, **pause), kind, final=False)


def refuse_needless(call: AgentCall, course: Course) -> None:
    """Raise where no attempt must be made now: too early, too often, or never again."""
    if call.pause and course.is_first:
        # What was tried inline is tried again from here, after its pause.
        last = course.progress.attempts[-1] if course.progress.attempts else None
        failure = course.wait(pause=call.pause, blocked_by=BlockedBy.RETRY_BACKOFF)
        text = (last and last.error) or f"Agent '{call.agent}' is tried again"
        raise _failed(text, failure, last.outcome if last else UNAVAILABLE, final=False)
    if course.lost and not call.idempotent:
        error = "The worker was lost while it called an agent that must not be called twice"
        raise _failed(error, course.failure(), OutcomeUnknown.__name__)
    if course.spent > call.retry.max_attempts:
        raise _failed(
            "the worker that made the call was lost",
            course.failure(exhausted=True),
            WORKER_LOST,
        )


def _failed(text: str, failure: CallFailure, kind: str, *, final: bool = True) -> ApplicationError:
    """The failure for the engine, once the next attempt has been left word."""
    if not final and not activity.info().is_local:
        activity.heartbeat(failure.progress)
        failure = brief(failure)
    return ApplicationError(
        text,
        failure,
        type=kind,
        non_retryable=final,
        # The engine takes a delay of zero for none given.
        next_retry_delay=timedelta(seconds=max(0.001, failure.pause or 0)),
    )


def _deadline(info: activity.Info, attempt_timeout: float) -> datetime:
    """The task's, by the engine's clock."""
    longest = info.schedule_to_close_timeout
    if longest is None:
        return datetime.now(UTC) + timedelta(seconds=attempt_timeout)
    return info.scheduled_time + longest


def _seconds_left(info: activity.Info, attempt_timeout: float) -> float:
    """The attempt's timeout, or what is left of the task's deadline; by the engine's clock."""
    if info.schedule_to_close_timeout is None:
        return attempt_timeout
    end = info.scheduled_time + info.schedule_to_close_timeout
    left = (end - max(info.started_time, info.current_attempt_scheduled_time)).total_seconds()
    # Ending just before the engine would lets us say what happened.
    return max(0.001, min(attempt_timeout, left - min(0.25, left / 10)))


def seconds_waited() -> float:
    """Since the engine had this call to give, or its retry was due; by the time of day."""
    return (datetime.now(UTC) - activity.info().current_attempt_scheduled_time).total_seconds()


def _reply(current: _Try, response: AgentResponse) -> AgentReply:
    if current.answer_id and response.status == HTTPStatus.ACCEPTED:
        return _accepted(current, response, current.answer_id)
    attempt = current.ended(SUCCESS, response.status)
    return AgentReply(
        result=response.body,
        instance=attempt.instance or "",
        status=response.status,
        attempt=attempt.attempt,
        seconds=attempt.seconds,
        attempts=current.course.with_attempt(attempt),
    )


def _accepted(current: _Try, response: AgentResponse, answer_id: str) -> AgentReply:
    """The agent answers later; the attempt counts."""
    attempt, course = current.ended(ACCEPTED, response.status), current.course
    return AgentReply(
        result=None,
        instance=attempt.instance or "",
        status=response.status,
        attempt=attempt.attempt,
        seconds=attempt.seconds,
        attempts=course.with_attempt(attempt),
        accepted=Accepted(
            answer_id=answer_id,
            progress=Progress(
                sent=course.number, made=course.spent, attempts=course.with_attempt(attempt)
            ),
            location=response.location,
            pause=response.retry_after,
        ),
    )


def _worker_stops() -> bool:
    """Whether the call is cut off because its worker ends, rather than by anybody's wish."""
    details = activity.cancellation_details()
    return details is not None and details.worker_shutdown and not details.cancel_requested


def _interrupted(current: _Try) -> ApplicationError:
    """Hand the call to another worker at once; left cancelled, it would wait for a timeout."""
    text = "The worker was stopped before the agent had answered"
    if not current.call.idempotent:
        attempt = current.ended(OutcomeUnknown.__name__, error=text)
        return _failed(text, current.course.failure(attempt), OutcomeUnknown.__name__)
    attempt = current.ended(WORKER_STOPPING, error=text)
    metrics.agent_call_retry(current.call.agent, WORKER_STOPPING)
    return _failed(text, current.course.wait(attempt, pause=0), WORKER_STOPPING, final=False)


@asynccontextmanager
async def _heartbeats(progress: Progress) -> AsyncIterator[None]:
    """Tell the engine that the call lives, which is also how a cancellation gets here."""
    if activity.info().is_local:
        # The workflow's own worker makes the call, and hears of both by itself.
        yield
        return
    beating = asyncio.create_task(_beat(progress))
    try:
        yield
    finally:
        beating.cancel()


async def _beat(progress: Progress) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        activity.heartbeat(progress)


def call_headers(
    task_id: str, attempt: int, timeout: float, trace: str | None = None
) -> dict[str, str]:
    """What every attempt carries beside the agent's own headers; ``timeout`` seconds from now."""
    deadline = datetime.now(UTC) + timedelta(seconds=timeout)
    return {
        "Idempotency-Key": task_id,
        "X-Task-ID": task_id,
        "X-Attempt": str(attempt),
        "X-Deadline": deadline.isoformat(timespec="milliseconds"),
        "traceparent": trace or traceparent(task_id),
    }
