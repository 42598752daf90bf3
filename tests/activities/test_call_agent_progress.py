"""How a call counts its attempts, over dispatches that know of each other by the engine alone."""

import pytest
from temporalio.exceptions import ApplicationError

from orchestrator.models import Attempt, BlockedBy, CallFailure, Progress
from tests.activities.stage import Caller, calling, failure_in, unserved
from tests.support.agents import Agent, Reply
from tests.support.plans import AGENT, call, retry

FAILS = Reply(status=500)
ONE_LOST = {"attempt": 2, "after": Progress()}


def earlier(instance: str = "http://earlier", agent: str = AGENT, outcome: str = "x") -> Attempt:
    """An attempt that another dispatch made."""
    return Attempt(
        attempt=1, agent=agent, instance=instance, outcome=outcome, seconds=1, error="it broke"
    )


async def final(caller: Caller, attempts: int = 1, **dispatch: object) -> ApplicationError:
    """A failure that must be the last."""
    error = await caller.failure(
        call(retry=retry(max_attempts=attempts)),
        **dispatch,  # type: ignore[arg-type]
    )
    assert error.non_retryable
    return error


async def test_the_last_of_the_attempts_ends_the_call() -> None:
    """The engine would go on for ever."""
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        failures = await caller.course(call(retry=retry(max_attempts=3)))
    assert [(1, True, False), (2, True, False), (3, False, True)] == [
        (each.attempts, each.retryable, each.exhausted) for each in failures
    ]
    assert ["1", "2", "3"] == [each.headers["X-Attempt"] for each in agent.calls]


async def test_each_attempt_hands_the_earlier_ones_to_the_next() -> None:
    """With what they brought, in their order; a success tells them all."""
    replies = (Reply(status=503), Reply(status=429), Reply())
    async with Agent(*replies) as agent, calling(agent.url) as caller:
        await caller.course(call())
        reply = await caller.attempt(call(), 3, after=caller.left[-1])
    assert [(1, "AgentFailed", 503), (2, "AgentOverloaded", 429), (3, "success", 200)] == [
        (each.attempt, each.outcome, each.status) for each in reply.attempts
    ]


async def test_a_failure_leaves_its_word_before_the_engine_hears_of_it() -> None:
    """The heartbeat's details and the failure's are the same."""
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        error = await caller.failure(call())
    assert [failure_in(error).progress] == caller.left


@pytest.mark.parametrize("reply", [Reply(), Reply(status=404)])
async def test_what_ends_the_call_leaves_no_word(reply: Reply) -> None:
    """Nobody would read it, and it would cost a call to the engine."""
    async with Agent(reply) as agent, calling(agent.url) as caller:
        await caller.course(call())
    assert [] == caller.left


async def test_an_inline_call_leaves_no_word() -> None:
    """The workflow itself hands on what it heard."""
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        await caller.failure(call(), is_local=True)
    assert [] == caller.left


async def test_only_the_latest_attempts_are_kept() -> None:
    """A call that is made a thousand times does not grow over the engine's limits."""
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        failures = await caller.course(call(retry=retry(max_attempts=25)), 25)
    last = failures[-1]
    assert (25, 25) == (last.attempts, last.progress.sent)
    assert list(range(6, 26)) == [each.attempt for each in last.progress.attempts]


async def test_a_retry_prefers_an_instance_that_was_not_tried() -> None:
    """In spite of whose turn it is; when all were tried any will do."""
    async with (
        Agent(Reply(status=503)) as one,
        Agent(Reply(status=503)) as two,
        Agent(Reply(status=503)) as three,
        calling(one.url, two.url, three.url) as caller,
    ):
        tried = Progress(sent=2, made=2, attempts=(earlier(one.url), earlier(two.url)))
        await caller.failure(call(), 3, after=tried)
        assert [0, 0, 1] == [len(each.calls) for each in (one, two, three)]
        failures = await caller.course(call(retry=retry(max_attempts=4)))
    at = [each.instance for each in failures[-1].progress.attempts]
    assert {one.url, two.url, three.url} == set(at[:3])


async def test_what_another_agent_was_asked_says_nothing_of_this_ones_instances() -> None:
    """They may even be the same."""
    async with Agent() as one, Agent() as two, calling(one.url, two.url) as caller:
        progress = Progress(attempts=(earlier(one.url, agent="writer"),))
        reply = await caller.attempt(call(progress=progress))
    assert one.url == reply.instance


async def test_the_attempts_of_another_agent_are_told_and_not_counted() -> None:
    """A fallback has all its attempts of its own."""
    progress = Progress(attempts=(earlier(agent="writer"),))
    given = call(progress=progress, retry=retry(max_attempts=2))
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        failures = await caller.course(given)
    assert [1, 2] == [each.attempts for each in failures]
    assert ["writer", AGENT, AGENT] == [each.agent for each in failures[-1].progress.attempts]


async def test_a_lost_dispatch_counts_as_an_attempt() -> None:
    """Its worker may have sent the request."""
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        error = await final(caller, attempts=2, **ONE_LOST)
    assert ("AgentFailed", 2, 1) == (
        error.type,
        failure_in(error).attempts,
        failure_in(error).progress.sent,
    )
    assert ["2"] == [each.headers["X-Attempt"] for each in agent.calls]


async def test_a_call_that_takes_every_worker_down_is_given_up() -> None:
    """After as many losses as it has attempts, and without another call."""
    async with Agent() as agent, calling(agent.url) as caller:
        error = await final(caller, attempts=2, attempt=3, after=Progress())
    found = failure_in(error)
    assert ("WorkerLost", 2, True, []) == (
        error.type,
        found.attempts,
        found.exhausted,
        agent.calls,
    )


async def test_waits_are_neither_attempts_nor_losses() -> None:
    """The engine counts ten dispatches; the agent's first attempt is the eleventh."""
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        error = await caller.failure(call(), 11, after=Progress(waits=10))
    assert 1 == failure_in(error).attempts
    assert ["1"] == [each.headers["X-Attempt"] for each in agent.calls]


async def test_a_call_over_from_inline_first_waits_out_its_pause() -> None:
    """The worker that takes it first only tells the engine when to come again."""
    progress = Progress(sent=1, made=1, attempts=(earlier(outcome="AgentOverloaded"),))
    async with Agent() as agent, calling(agent.url) as caller:
        error = await caller.failure(call(progress=progress, pause=7.5))
    expected = CallFailure(
        progress=progress.model_copy(update={"waits": 1}),
        attempts=1,
        retryable=True,
        pause=7.5,
        blocked_by=BlockedBy.RETRY_BACKOFF,
    )
    assert expected == failure_in(error)
    assert ("AgentOverloaded", "it broke", 7.5, []) == (
        error.type,
        error.message,
        error.next_retry_delay and error.next_retry_delay.total_seconds(),
        agent.calls,
    )


async def test_after_its_pause_a_call_over_from_inline_goes_on_counting() -> None:
    """Its inline attempt was the first."""
    progress = Progress(sent=1, made=1, attempts=(earlier(),))
    given = call(progress=progress, pause=7.5, retry=retry(max_attempts=3))
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        failures = await caller.course(given)
    assert [1, 2, 3] == [each.attempts for each in failures]
    assert ["2", "3"] == [each.headers["X-Attempt"] for each in agent.calls]


async def test_losses_are_found_beside_what_went_before_this_activity() -> None:
    """Attempts made inline are no dispatches of its own."""
    begun = Progress(sent=1, made=1, attempts=(earlier(),))
    given = call(progress=begun, retry=retry(max_attempts=9))
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        # The pause was waited out, then a worker was lost.
        error = await caller.failure(given, 3, after=begun.model_copy(update={"waits": 1}))
    assert 3 == failure_in(error).attempts


async def test_the_backoff_goes_by_the_attempts_and_not_by_the_dispatches() -> None:
    """Waiting for the agent does not make later pauses longer."""
    async with Agent(FAILS) as agent, calling(agent.url) as caller:
        error = await caller.failure(call(), 9, after=Progress(sent=1, made=1, waits=7))
    assert 2.0 == failure_in(error).pause


async def test_an_agent_that_was_never_reached_may_be_asked_again_whatever_it_does() -> None:
    """Nothing was sent, so nothing can happen twice."""
    with unserved() as url:
        async with calling(url) as caller:
            failures = await caller.course(call(idempotent=False, retry=retry(max_attempts=2)))
    assert [True, False] == [each.retryable for each in failures]


@pytest.mark.parametrize(
    "reply",
    [FAILS, Reply(status=429), Reply(reset=True), Reply(hang=True)],
    ids=["500", "429", "reset", "hang"],
)
async def test_an_agent_that_must_not_be_called_twice_is_not(reply: Reply) -> None:
    """Once the request was sent; the failure says that nobody knows what came of it."""
    given = call(idempotent=False, attempt_timeout=0.2)
    async with Agent(reply) as agent, calling(agent.url) as caller:
        error = await caller.failure(given)
    assert ("OutcomeUnknown", True, 1) == (error.type, error.non_retryable, len(agent.calls))
    assert "the agent is not idempotent, so it is not called again" in error.message
    [attempt] = failure_in(error).progress.attempts
    assert "OutcomeUnknown" == attempt.outcome


async def test_a_refusal_is_a_refusal_whatever_the_agent_does() -> None:
    """Its outcome is known."""
    async with Agent(Reply(status=404)) as agent, calling(agent.url) as caller:
        error = await caller.failure(call(idempotent=False))
    assert "AgentRejected" == error.type


async def test_an_agent_that_must_not_be_called_twice_is_not_after_a_lost_worker() -> None:
    """It may have been called."""
    given = call(idempotent=False)
    async with Agent() as agent, calling(agent.url) as caller:
        error = await caller.failure(given, **ONE_LOST)  # type: ignore[arg-type]
    assert ("OutcomeUnknown", True, 1, []) == (
        error.type,
        error.non_retryable,
        failure_in(error).attempts,
        agent.calls,
    )


async def test_waiting_for_it_is_no_call_of_an_agent_that_must_not_be_called_twice() -> None:
    """Its first attempt comes after however many waits."""
    async with Agent() as agent, calling(agent.url) as caller:
        await caller.attempt(call(idempotent=False), 5, after=Progress(waits=4))
    assert 1 == len(agent.calls)
