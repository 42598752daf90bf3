"""One attempt to call an agent: lease an instance, send, report the outcome to the engine."""

import asyncio
import random
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from orchestrator.errors import (
    CallError,
    RetryableCallError,
)
from orchestrator.models import AgentCall, AgentReply, Attempt, RetryPlan
from orchestrator.resilience.pool import Pools
from orchestrator.routing import backoff_seconds
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger
from orchestrator.transports import AgentRequest, AgentResponse, Transport

HEARTBEAT_SECONDS = 1.0
"""Shorter calls never heartbeat, and so cost the engine nothing beyond their two events."""

DEADLINE_EXCEEDED = "DeadlineExceeded"

log = get_logger(__name__)


class AgentCalls:
    """The activity with what it needs: the pools of instances, the transport, headers by agent."""

    def __init__(
        self,
        pools: Pools,
        transport: Transport,
        headers: Mapping[str, Mapping[str, str]],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._pools = pools
        self._transport = transport
        self._headers = headers
        self._chance = chance

    @activity.defn
    async def call_agent(self, call: AgentCall) -> AgentReply:
        """Make one attempt.

        Raises:
            ApplicationError: typed after the call error; retryable ones say when to try again.
        """
        started = time.perf_counter()
        instance_url = None
        try:
            with self._pools.of_agent(call.agent).lease(call.endpoint) as (instance, url):
                instance_url = instance.url
                async with _heartbeats():
                    response = await self._transport.send(self._request(call, url))
        except CallError as error:
            raise self._failure(call, error, instance_url, time.perf_counter() - started) from None
        except asyncio.CancelledError:
            if _worker_stops():
                raise _interrupted(call, instance_url, time.perf_counter() - started) from None
            raise
        except Exception:
            log.exception("attempt_broke", task_id=call.task_id, agent=call.agent)
            raise
        return _reply(call, response, instance_url, time.perf_counter() - started)

    def _request(self, call: AgentCall, url: str) -> AgentRequest:
        info = activity.info()
        timeout = _seconds_left(info, call.attempt_timeout)
        deadline = datetime.now(UTC) + timedelta(seconds=timeout)
        return AgentRequest(
            agent=call.agent,
            url=url,
            payload=call.payload,
            timeout=timeout,
            headers={
                **self._headers.get(call.agent, {}),
                "Idempotency-Key": call.task_id,
                "X-Task-ID": call.task_id,
                "X-Attempt": str(info.attempt),
                "X-Deadline": deadline.isoformat(timespec="milliseconds"),
                "traceparent": call.traceparent or traceparent(call.task_id),
            },
        )

    def _failure(
        self, call: AgentCall, error: CallError, instance: str | None, seconds: float
    ) -> ApplicationError:
        info = activity.info()
        attempt = info.attempt
        kind = type(error).__name__
        pause = self._pause(call.retry, attempt, error)
        too_late = pause is not None and _too_late(info, pause)
        metrics.agent_call(call.agent, kind, seconds)
        log.warning(
            "attempt_failed",
            task_id=call.task_id,
            agent=call.agent,
            instance=instance,
            attempt=attempt,
            error=str(error),
            error_type=kind,
            execution_time=round(seconds, 6),
        )
        message = f"{error}; it said: {error.excerpt}" if error.excerpt else str(error)
        return ApplicationError(
            message,
            Attempt(
                attempt=attempt,
                instance=instance,
                error_type=kind,
                seconds=round(seconds, 6),
                status=error.status,
            ),
            type=DEADLINE_EXCEEDED if too_late else kind,
            non_retryable=too_late or not isinstance(error, RetryableCallError),
            next_retry_delay=pause,
        )

    def _pause(self, retry: RetryPlan, attempt: int, error: CallError) -> timedelta | None:
        """The pause that the agent asked for, clamped, or else the backoff; jittered.

        Jitter never makes a pause shorter than the agent asked for.
        """
        if not isinstance(error, RetryableCallError):
            return None
        if error.retry_after is not None:
            seconds = min(error.retry_after, retry.max_retry_after_seconds)
            spread = self._chance()
        else:
            seconds = backoff_seconds(retry, attempt)
            spread = 2 * self._chance() - 1
        # The engine takes a delay of zero for none given.
        return timedelta(seconds=max(0.001, seconds * (1 + spread * retry.jitter)))


def _seconds_left(info: activity.Info, attempt_timeout: float) -> float:
    """The attempt's timeout, or what is left of the task's deadline; by the engine's clock."""
    if info.schedule_to_close_timeout is None:
        return attempt_timeout
    end = info.scheduled_time + info.schedule_to_close_timeout
    left = (end - max(info.started_time, info.current_attempt_scheduled_time)).total_seconds()
    # Ending just before the engine would lets us say what happened.
    return max(0.001, min(attempt_timeout, left - min(0.25, left / 10)))


def _too_late(info: activity.Info, pause: timedelta) -> bool:
    """Whether a local activity's next attempt would come after its deadline.

    The engine asks this of the others; local ones it would try again in spite of it.
    """
    if not info.is_local or info.schedule_to_close_timeout is None:
        return False
    return datetime.now(UTC) + pause >= info.scheduled_time + info.schedule_to_close_timeout


def _reply(
    call: AgentCall, response: AgentResponse, instance: str | None, seconds: float
) -> AgentReply:
    metrics.agent_call(call.agent, "success", seconds)
    return AgentReply(
        result=response.body,
        instance=instance or "",
        status=response.status,
        attempt=activity.info().attempt,
        seconds=round(seconds, 6),
    )


def _worker_stops() -> bool:
    """Whether the call is cut off because its worker ends, rather than by anybody's wish."""
    details = activity.cancellation_details()
    return details is not None and details.worker_shutdown and not details.cancel_requested


def _interrupted(call: AgentCall, instance: str | None, seconds: float) -> ApplicationError:
    """Hand the call to another worker at once; left cancelled, it would wait for a timeout."""
    kind = "WorkerStopping"
    metrics.agent_call(call.agent, kind, seconds)
    return ApplicationError(
        "The worker was stopped before the agent had answered",
        Attempt(
            attempt=activity.info().attempt, instance=instance, error_type=kind, seconds=seconds
        ),
        type=kind,
        next_retry_delay=timedelta(milliseconds=1),
    )


@asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Tell the engine that the call lives, which is also how a cancellation gets here."""
    if activity.info().is_local:
        # The workflow's own worker makes the call, and hears of both by itself.
        yield
        return
    beating = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beating.cancel()


async def _beat() -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        activity.heartbeat()


def traceparent(task_id: str) -> str:
    """A W3C trace context whose trace id is the task's, for callers that sent none."""
    try:
        trace_id = uuid.UUID(task_id).hex
    except ValueError:
        trace_id = uuid.uuid5(uuid.NAMESPACE_URL, task_id).hex
    return f"00-{trace_id}-{secrets.token_hex(8)}-00"
