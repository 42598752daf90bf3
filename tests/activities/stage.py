"""The activity outside the engine: call_agent with real pools, transport and HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.call_agent import AgentCalls
from orchestrator.models import AgentCall, AgentReply
from orchestrator.resilience.balancer import Instance, RoundRobin
from orchestrator.resilience.pool import Pool, Pools
from orchestrator.transports.http import HttpTransport
from tests.support.plans import AGENT

MAX_RESULT_BYTES = 10_000
NEUTRAL_CHANCE = 0.5


class Caller:
    """Makes attempts as a worker would, each in an environment of its own."""

    def __init__(self, calls: AgentCalls) -> None:
        self._calls = calls

    def environment(self, attempt: int = 1, **info: Any) -> ActivityEnvironment:
        """The environment of one attempt that starts now."""
        environment = ActivityEnvironment()
        now = datetime.now(UTC)
        defaults: dict[str, Any] = {
            "attempt": attempt,
            "schedule_to_close_timeout": timedelta(hours=1),
            "scheduled_time": now,
            "current_attempt_scheduled_time": now,
            "started_time": now,
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

    async def run(self, environment: ActivityEnvironment, call: AgentCall) -> AgentReply:
        """Make one attempt in an environment that the test keeps."""
        return await environment.run(self._calls.call_agent, call)


@asynccontextmanager
async def calling(
    *urls: str,
    headers: Mapping[str, Mapping[str, str]] | None = None,
    chance: float = NEUTRAL_CHANCE,
) -> AsyncIterator[Caller]:
    """A caller of the tests' agent, which has an instance at each URL.

    ``chance`` is what every draw for jitter gives; 0.5 leaves a backoff as it is.
    """
    transport = HttpTransport(MAX_RESULT_BYTES)
    instances: Sequence[Instance] = [Instance(url) for url in urls]
    pools = Pools({AGENT: Pool(AGENT, instances, RoundRobin())})
    try:
        yield Caller(AgentCalls(pools, transport, headers or {}, lambda: chance))
    finally:
        await transport.close()
