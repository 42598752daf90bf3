"""The activity outside the engine: call_agent with real pools, transport and HTTP."""

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.call_agent import AgentCalls
from orchestrator.messaging.outbox import Outbox
from orchestrator.models import AgentCall, AgentReply, CallFailure, Progress
from orchestrator.resilience.balancer import RoundRobin
from orchestrator.resilience.breaker_policy import BreakerPolicy
from orchestrator.resilience.member import PoolPolicy
from orchestrator.resilience.pool import Pool, Pools
from orchestrator.transports.http import HttpTransport
from tests.support.plans import AGENT

MAX_RESULT_BYTES = 10_000
NEUTRAL_CHANCE = 0.5


# Tests of single attempts must not open it; those of the breaker give a policy of their own.
PATIENT = PoolPolicy(breaker=BreakerPolicy(consecutive_failures=None))


class Caller:
    """Makes attempts as a worker would, each in an environment of its own."""

    def __init__(self, calls: AgentCalls, pool: Pool) -> None:
        self._calls = calls
        self.pool = pool
        self.left: list[Progress] = []
        """What the attempts left word of by heartbeat, for the next to find."""

    def environment(
        self, attempt: int = 1, after: Progress | None = None, **info: Any
    ) -> ActivityEnvironment:
        """The environment of a dispatch that starts now.

        Args:
            attempt: the engine's count of dispatches.
            after: what the dispatches before left word of; by default each made its attempt.
            info: whatever else is to differ.
        """
        environment = ActivityEnvironment()
        environment.on_heartbeat = self.left.append
        now = datetime.now(UTC)
        after = after or Progress(sent=attempt - 1, made=attempt - 1)
        defaults: dict[str, Any] = {
            "attempt": attempt,
            "schedule_to_close_timeout": timedelta(hours=1),
            "scheduled_time": now,
            "current_attempt_scheduled_time": now,
            "started_time": now,
            "is_local": False,
            # The engine hands it on as JSON, of which nobody said what it is.
            "heartbeat_details": [after.model_dump(mode="json")] if attempt > 1 else [],
        }
        environment.info = replace(environment.info, **(defaults | info))
        return environment

    async def attempt(self, call: AgentCall, attempt: int = 1, **info: Any) -> AgentReply:
        """Make one attempt."""
        return await self.environment(attempt, **info).run(self._calls.call_agent, call)

    async def failure(self, call: AgentCall, attempt: int = 1, **info: Any) -> ApplicationError:
        """Make one attempt that must fail."""
        with pytest.raises(ApplicationError) as caught:
            await self.attempt(call, attempt, **info)
        return caught.value

    async def course(self, call: AgentCall, dispatches: int = 20) -> list[CallFailure]:
        """Dispatch the call as the engine would until it has ended; the failures on the way.

        The pauses between them are left out.
        """
        failures: list[CallFailure] = []
        for number in range(1, dispatches + 1):
            after = self.left[-1] if self.left else Progress()
            try:
                await self.attempt(call, number, after=after)
            except ApplicationError as error:
                failures.append(failure_in(error))
                if error.non_retryable:
                    return failures
            else:
                return failures
        raise AssertionError(failures)

    async def run(self, environment: ActivityEnvironment, call: AgentCall) -> AgentReply:
        """Make one attempt in an environment that the test keeps."""
        return await environment.run(self._calls.call_agent, call)


def failure_in(error: ApplicationError) -> CallFailure:
    """What a failed attempt tells the workflow."""
    [found] = error.details
    assert isinstance(found, CallFailure)
    return found


@contextmanager
def unserved() -> Iterator[str]:
    """A URL where connections are refused, and which nobody else can take meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@asynccontextmanager
async def calling(
    *urls: str,
    headers: Mapping[str, Mapping[str, str]] | None = None,
    chance: float = NEUTRAL_CHANCE,
    policy: PoolPolicy = PATIENT,
    clock: Callable[[], float] = time.monotonic,
    outbox: Outbox | None = None,
) -> AsyncIterator[Caller]:
    """A caller of the tests' agent, which has an instance at each URL.

    ``chance`` is what every draw for jitter gives; 0.5 leaves a backoff as it is.
    """
    transport = HttpTransport(MAX_RESULT_BYTES)
    pool = Pool(AGENT, [(url, 1) for url in urls], RoundRobin(), policy, clock)
    calls = AgentCalls(
        Pools({AGENT: pool}), transport, headers or {}, lambda: chance, outbox=outbox
    )
    try:
        yield Caller(calls, pool)
    finally:
        await transport.close()
