"""A call and its agent's breaker: what it learns, and what a task pays while it is open."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError

from orchestrator.models import BlockedBy, CallFailure, Progress
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState
from orchestrator.resilience.member import PoolPolicy
from tests.activities.stage import Caller, calling, failure_in, unserved
from tests.support.agents import Agent, Reply
from tests.support.plans import AGENT, call, retry

OPEN_SECONDS = 30.0
AT_ONCE = PoolPolicy(breaker=BreakerPolicy(consecutive_failures=1, open_seconds=OPEN_SECONDS))
FAILS = Reply(status=500)


class Clock:
    """A clock that the test turns; it tells the seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def state(caller: Caller) -> BreakerState:
    """Of the one instance's breaker."""
    return caller.pool.instances[0].breaker.state


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (FAILS, BreakerState.OPEN),
        (Reply(status=503), BreakerState.OPEN),
        (Reply(reset=True), BreakerState.OPEN),
        (Reply(status=429), BreakerState.CLOSED),
        (Reply(status=404), BreakerState.CLOSED),
        (Reply(body="no JSON"), BreakerState.CLOSED),
        (Reply(), BreakerState.CLOSED),
    ],
    ids=["500", "503", "reset", "429", "404", "unreadable", "success"],
)
async def test_what_counts_against_an_instance(reply: Reply, expected: BreakerState) -> None:
    """Failures do; refusals and a wish for fewer calls do not."""
    async with Agent(reply) as agent, calling(agent.url, policy=AT_ONCE) as caller:
        with suppress(ApplicationError):
            await caller.attempt(call())
        assert expected is state(caller)


async def test_an_instance_that_cannot_be_reached_has_failed() -> None:
    """It is left alone for a while."""
    with unserved() as url:
        async with calling(url, policy=AT_ONCE) as caller:
            await caller.failure(call())
            assert BreakerState.OPEN is state(caller)


async def test_an_instance_that_had_its_whole_timeout_has_failed() -> None:
    """However short the rule made it."""
    async with Agent(Reply(hang=True)) as agent, calling(agent.url, policy=AT_ONCE) as caller:
        await caller.failure(call(attempt_timeout=0.1))
        assert BreakerState.OPEN is state(caller)


async def test_a_deadline_that_cuts_a_call_short_says_nothing_of_the_instance() -> None:
    """The task was late; others may have the whole timeout."""
    now = datetime.now(UTC)
    async with Agent(Reply(hang=True)) as agent, calling(agent.url, policy=AT_ONCE) as caller:
        error = await caller.failure(
            call(attempt_timeout=30),
            schedule_to_close_timeout=timedelta(seconds=60),
            scheduled_time=now - timedelta(seconds=59.8),
        )
        assert ("AgentTimedOut", BreakerState.CLOSED) == (error.type, state(caller))


async def test_a_cancelled_call_says_nothing_of_the_instance() -> None:
    """Whoever ended it, it was not the agent."""
    async with Agent(Reply(hang=True)) as agent, calling(agent.url, policy=AT_ONCE) as caller:
        environment = caller.environment()
        running = asyncio.create_task(caller.run(environment, call()))
        await agent.called()
        assert 1 == caller.pool.instances[0].active
        environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (BreakerState.CLOSED, 0) == (state(caller), caller.pool.instances[0].active)


async def test_a_call_of_an_agent_that_is_not_available_waits() -> None:
    """For as long as the breaker stays open; nothing was sent, and no attempt is spent."""
    clock = Clock()
    async with Agent(FAILS) as agent, calling(agent.url, policy=AT_ONCE, clock=clock) as caller:
        await caller.failure(call())
        clock.now += 10
        error = await caller.failure(call())
    expected = CallFailure(
        progress=Progress(waits=1),
        retryable=True,
        pause=20.0,
        blocked_by=BlockedBy.BREAKER,
    )
    assert expected == failure_in(error)
    assert ("AgentUnavailable", f"Agent '{AGENT}' is currently unavailable", 1) == (
        error.type,
        error.message,
        len(agent.calls),
    )
    assert timedelta(seconds=20) == error.next_retry_delay


async def test_an_agent_may_be_away_for_any_number_of_dispatches() -> None:
    """The attempts are as many as before when it is back."""
    given = call(retry=retry(max_attempts=1))
    async with Agent() as agent, calling(agent.url) as caller:
        caller.pool.instances[0].breaker.force_open("the test")
        for number in range(1, 31):
            after = caller.left[-1] if caller.left else Progress()
            error = await caller.failure(given, number, after=after)
            assert not error.non_retryable
        caller.pool.instances[0].breaker.reset("the test")
        reply = await caller.attempt(given, 31, after=caller.left[-1])
    assert (1, 30) == (reply.attempt, caller.left[-1].waits)


async def test_nobody_knows_when_an_operator_closes_a_breaker() -> None:
    """So it is looked at again every few seconds."""
    async with Agent() as agent, calling(agent.url) as caller:
        caller.pool.instances[0].breaker.force_open("the test")
        error = await caller.failure(call())
    assert (5.0, BlockedBy.BREAKER) == (failure_in(error).pause, failure_in(error).blocked_by)


async def test_a_drained_agent_is_paused() -> None:
    """By an operator, who will resume it."""
    async with Agent() as agent, calling(agent.url) as caller:
        caller.pool.instances[0].draining = True
        error = await caller.failure(call())
    assert (5.0, BlockedBy.PAUSED) == (failure_in(error).pause, failure_in(error).blocked_by)


async def test_waits_are_spread_and_never_shortened() -> None:
    """A thousand tasks do not come back at once, nor too early."""
    async with Agent() as agent, calling(agent.url, chance=1.0) as caller:
        caller.pool.instances[0].breaker.force_open("the test")
        error = await caller.failure(call(retry=retry(jitter=0.1)))
    assert pytest.approx(5.5) == failure_in(error).pause


async def test_a_call_with_a_fallback_does_not_wait() -> None:
    """It fails, for another agent to be asked."""
    async with Agent() as agent, calling(agent.url) as caller:
        caller.pool.instances[0].breaker.force_open("the test")
        error = await caller.failure(call(wait=False))
    assert ("AgentUnavailable", True, []) == (error.type, error.non_retryable, agent.calls)
    assert [] == caller.left


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_trial_that_finds_the_agent_still_down_costs_no_attempt(status: int) -> None:
    """The breaker sent it, to see; it is told all the same."""
    clock = Clock()
    given = call(retry=retry(max_attempts=1))
    reply = Reply(status=status)
    async with Agent(reply) as agent, calling(agent.url, policy=AT_ONCE, clock=clock) as caller:
        await caller.failure(call())
        clock.now += OPEN_SECONDS
        error = await caller.failure(given)
    found = failure_in(error)
    assert (False, True, False) == (error.non_retryable, found.retryable, found.exhausted)
    assert (1, 0, 1) == (found.progress.sent, found.progress.made, found.progress.waits)
    assert [status] == [each.status for each in found.progress.attempts]


async def test_a_trial_that_finds_nobody_costs_no_attempt() -> None:
    """As one that is answered with 503."""
    clock = Clock()
    with unserved() as url:
        async with calling(url, policy=AT_ONCE, clock=clock) as caller:
            await caller.failure(call())
            clock.now += OPEN_SECONDS
            error = await caller.failure(call(retry=retry(max_attempts=1)))
    assert (False, 1) == (error.non_retryable, failure_in(error).progress.waits)


@pytest.mark.parametrize("status", [500, 408])
async def test_a_trial_that_fails_over_what_was_asked_is_an_attempt(status: int) -> None:
    """A task that breaks the agent must not be its every trial."""
    clock = Clock()
    reply = Reply(status=status)
    async with Agent(reply) as agent, calling(agent.url, policy=AT_ONCE, clock=clock) as caller:
        await caller.failure(call())
        clock.now += OPEN_SECONDS
        error = await caller.failure(call(retry=retry(max_attempts=1)))
    assert (True, True) == (error.non_retryable, failure_in(error).exhausted)


async def test_an_agent_that_must_not_be_called_twice_has_its_trial_once() -> None:
    """A trial reaches the agent as any call does."""
    clock = Clock()
    reply = Reply(status=503)
    async with Agent(reply) as agent, calling(agent.url, policy=AT_ONCE, clock=clock) as caller:
        await caller.failure(call())
        clock.now += OPEN_SECONDS
        error = await caller.failure(call(idempotent=False))
    assert ("OutcomeUnknown", True) == (error.type, error.non_retryable)


async def test_calls_over_the_trial_permits_wait_a_moment() -> None:
    """Until one of the trials has ended."""
    policy = PoolPolicy(
        breaker=BreakerPolicy(consecutive_failures=1, open_seconds=30.0, half_open_permits=1)
    )
    clock = Clock()
    replies = (FAILS, Reply(hang=True))
    async with Agent(*replies) as agent, calling(agent.url, policy=policy, clock=clock) as caller:
        await caller.failure(call())
        clock.now += OPEN_SECONDS
        trial = asyncio.create_task(caller.attempt(call()))
        await agent.called(2)
        error = await caller.failure(call())
        agent.release()
        await trial
        assert BreakerState.CLOSED is state(caller)
    assert (0.5, BlockedBy.BREAKER, 2) == (
        failure_in(error).pause,
        failure_in(error).blocked_by,
        len(agent.calls),
    )


async def test_a_call_that_is_cut_off_by_its_workers_end_is_made_by_another() -> None:
    """At once, and without an attempt spent."""
    error = await cut_off()
    found = failure_in(error)
    assert ("WorkerStopping", False, True) == (error.type, error.non_retryable, found.retryable)
    assert (1, 0, 1) == (found.progress.sent, found.progress.made, found.progress.waits)
    assert timedelta(milliseconds=1) == error.next_retry_delay


async def test_a_call_that_must_not_be_made_twice_ends_with_its_worker() -> None:
    """It was sent, and nobody knows what came of it."""
    error = await cut_off(idempotent=False)
    assert ("OutcomeUnknown", True) == (error.type, error.non_retryable)


async def cut_off(**changes: bool) -> ApplicationError:
    """The failure of a call under way when its worker is stopped."""
    async with Agent(Reply(hang=True)) as agent, calling(agent.url) as caller:
        environment = caller.environment()
        running = asyncio.create_task(caller.run(environment, call(**changes)))
        await agent.called()
        environment.cancel(ActivityCancellationDetails(worker_shutdown=True))
        with pytest.raises(ApplicationError) as caught:
            await running
    return caught.value
