"""One look at the Location of an agent that answers later, and when the next one comes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.late_answers import LateAnswers
from orchestrator.late_models import AnswerWait
from orchestrator.models import Accepted, Progress
from orchestrator.transports.http import HttpTransport
from tests.support.agents import Agent, Reply
from tests.support.plans import AGENT

HOUR = {"Retry-After": "3600"}


@asynccontextmanager
async def polling() -> AsyncIterator[LateAnswers]:
    """The activities, over HTTP."""
    transport = HttpTransport(10_000)
    try:
        yield LateAnswers(transport, {})
    finally:
        await transport.close()


async def pause(
    reply: Reply, left: float, *, attempt: int = 2, told: float | None = None, interval: float = 5
) -> float:
    """Seconds until the next look, after one with so many seconds left."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=attempt, heartbeat_details=[])
    async with Agent(reply) as agent, polling() as activities:
        wait = AnswerWait(
            task_id="task",
            agent=AGENT,
            accepted=Accepted(
                answer_id="a", progress=Progress(), location=f"{agent.url}/jobs/7", pause=told
            ),
            until=datetime.now(UTC) + timedelta(seconds=left),
            interval=interval,
        )
        with pytest.raises(ApplicationError) as caught:
            await environment.run(activities.poll_answer, wait)
    assert not caught.value.non_retryable
    assert caught.value.next_retry_delay is not None
    return caught.value.next_retry_delay.total_seconds()


async def test_the_next_look_comes_when_the_agent_says() -> None:
    """Or after the rule's interval."""
    assert 17 == await pause(Reply(status=202, headers={"Retry-After": "17"}), 600)
    assert 5 == await pause(Reply(status=202), 600)
    assert 5 == await pause(Reply(status=503), 600)


@pytest.mark.parametrize("status", [202, 503])
async def test_a_last_look_comes_before_the_time_is_up(status: int) -> None:
    """An agent that asks to wait for longer does not end the waiting."""
    assert 500 < await pause(Reply(status=status, headers=HOUR), 600) < 600


async def test_so_does_the_first_look() -> None:
    """Be it the 202 to the call, or the rule, that would have it come later."""
    assert 500 < await pause(Reply(), 600, attempt=1, told=3600) < 600
    assert 500 < await pause(Reply(), 600, attempt=1, interval=3600) < 600


async def test_with_no_time_left_the_engine_ends_it() -> None:
    """The pause is the shortest there is."""
    assert 0.05 == await pause(Reply(status=202, headers=HOUR), 0)
