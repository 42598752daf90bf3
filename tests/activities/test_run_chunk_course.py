"""How a chunk goes: what the agent can take, what limits it, what cuts it off."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.activity import ActivityCancellationDetails

from activities import chunk_course
from orchestrator.batches import ChunkReport
from orchestrator.models import BlockedBy, TaskState
from orchestrator.resilience.breaker_policy import BreakerPolicy
from orchestrator.resilience.member import PoolPolicy
from tests.activities.chunk_stage import by_position, chunk, chunking, places
from tests.activities.stage import failure_in
from tests.support.agents import Agent, Reply
from tests.support.stack import eventually

DEADLINE_SECONDS = 20.0
NEVER_AGAIN = {"rate": 0.1, "burst": 2, "mode": "reject"}
BRIEFLY = {"rate": 1200, "burst": 2, "mode": "reject"}


def patient(connections: int) -> PoolPolicy:
    """A pool of so many calls at once, whose breaker stays closed."""
    return PoolPolicy(breaker=BreakerPolicy(consecutive_failures=None), max_connections=connections)


def frail(connections: int, failures: int = 2) -> PoolPolicy:
    """One whose breaker opens after so many failures, for long."""
    breaker = BreakerPolicy(consecutive_failures=failures, open_seconds=30)
    return PoolPolicy(breaker=breaker, max_connections=connections)


async def test_an_agent_that_takes_no_call_is_asked_again_later() -> None:
    """The engine is told to come again; that is counted, and costs no attempt."""
    async with Agent() as agent, chunking(agent.url, policy=frail(5)) as chunker:
        [member] = chunker.pool.instances
        member.breaker.force_open("the test")
        first = await chunker.refusal(chunk(3))
        told = chunker.told[-1]
        second = await chunker.refusal(chunk(3), dispatch=2, after=told)
        again = chunker.told[-1]
        member.breaker.reset("the test")
        report = await chunker.run(chunk(3), dispatch=3, after=again)
        attempts = {call.headers["X-Attempt"] for call in agent.calls}
    assert [("AgentUnavailable", False)] * 2 == [
        (each.type, each.non_retryable) for each in (first, second)
    ]
    assert BlockedBy.BREAKER is failure_in(first).blocked_by
    assert [1, 2] == [told.waits, again.waits]
    assert ([0, 1, 2], {"1"}) == (places(report.outcomes), attempts)


async def test_where_another_agent_can_be_asked_nobody_waits() -> None:
    """The failure is for good."""
    async with Agent() as agent, chunking(agent.url, policy=frail(5)) as chunker:
        [member] = chunker.pool.instances
        member.breaker.force_open("the test")
        error = await chunker.refusal(chunk(3, wait=False))
        assert [] == agent.calls
    assert ("AgentUnavailable", True, []) == (error.type, error.non_retryable, chunker.told)


async def test_an_agent_that_fails_on_the_way_gets_no_further_call() -> None:
    """What was not begun is left; what failed goes on alone."""
    async with (
        Agent(Reply(status=503)) as agent,
        chunking(agent.url, policy=frail(1, failures=3)) as chunker,
    ):
        report = await chunker.run(chunk(10))
        assert 3 == len(agent.calls)
    assert ([0, 1, 2], tuple(range(3, 10))) == (places(report.unfinished), report.left)


async def test_a_trial_call_that_fails_costs_its_item_nothing() -> None:
    """What the breaker knew before, it knows again: the chunk waits, as if nothing was begun."""
    policy = PoolPolicy(
        breaker=BreakerPolicy(consecutive_failures=1, open_seconds=0.05, half_open_permits=1),
        max_connections=1,
    )
    async with Agent(Reply(status=503)) as agent, chunking(agent.url, policy=policy) as chunker:

        async def on_trial() -> bool:
            return chunker.pool.capacity() > 0

        first = await chunker.run(chunk(1))
        await eventually(on_trial)
        error = await chunker.refusal(chunk(4))
        told = chunker.told[-1]
        agent.script(Reply())
        await eventually(on_trial)
        last = await chunker.run(chunk(4), dispatch=2, after=told)
    assert [0] == places(first.unfinished)
    assert ("AgentUnavailable", False, 1) == (error.type, error.non_retryable, told.waits)
    assert {1} == {each.attempt for each in last.outcomes}
    assert "1" == agent.calls[1].headers["X-Attempt"]


async def test_a_deadline_that_has_passed_fails_without_a_call() -> None:
    """It may be run again."""
    created_at = datetime.now(UTC) - timedelta(seconds=61)
    async with Agent() as agent, chunking(agent.url) as chunker:
        strict = chunk(2, strict=True, created_at=created_at, deadline=60, dead_letter=True)
        report = await chunker.run(strict)
        assert [] == agent.calls
        lenient = await chunker.run(strict.model_copy(update={"strict": False}))
    assert [(TaskState.FAILED, "DeadlineExceeded", True, None)] * 2 == [
        (each.state, each.error_type, each.dead_letter, each.attempt) for each in report.outcomes
    ]
    assert {TaskState.COMPLETED} == {each.state for each in lenient.outcomes}


async def test_an_attempt_ends_with_the_deadline() -> None:
    """Whatever an attempt may take else."""
    async with Agent(Reply(hang=True)) as agent, chunking(agent.url) as chunker:
        created_at = datetime.now(UTC) - timedelta(seconds=59.5)
        strict = chunk(1, strict=True, created_at=created_at, deadline=60, attempt_timeout=3000)
        async with asyncio.timeout(DEADLINE_SECONDS):
            [each] = (await chunker.run(strict)).unfinished
    assert ["AgentTimedOut"] == [attempt.outcome for attempt in each.progress.attempts]


async def test_calls_are_paced_by_the_agents_rate() -> None:
    """A burst, then one after another."""
    async with Agent() as agent, chunking(agent.url, rate=BRIEFLY) as chunker:
        began = time.monotonic()
        report = await chunker.run(chunk(8))
        seconds = time.monotonic() - began
    assert list(range(8)) == places(report.outcomes)
    assert seconds >= 6 * 60 / 1200 * 0.95


async def test_a_rate_that_would_take_too_long_leaves_the_rest() -> None:
    """When nothing can be begun, the engine is told when to come again."""
    async with Agent() as agent, chunking(agent.url, rate=NEVER_AGAIN) as chunker:
        report = await chunker.run(chunk(5))
        error = await chunker.refusal(chunk(3, first=2))
        assert 2 == len(agent.calls)
    assert ([0, 1], (2, 3, 4)) == (places(report.outcomes), report.left)
    failure = failure_in(error)
    assert BlockedBy.RATE_LIMIT is failure.blocked_by
    assert failure.pause is not None
    assert 500 < failure.pause <= 600


async def test_a_rate_is_waited_for_also_where_another_agent_can_be_asked() -> None:
    """A limit is no failure of the agent."""
    async with Agent() as agent, chunking(agent.url, rate=NEVER_AGAIN) as chunker:
        await chunker.run(chunk(2))
        error = await chunker.refusal(chunk(3, first=2, wait=False))
    assert ("AgentUnavailable", False) == (error.type, error.non_retryable)
    assert 1 == chunker.told[-1].waits


async def test_a_token_for_a_call_that_cannot_be_made_is_given_back() -> None:
    """An agent that is away loses nothing of its rate."""
    async with Agent() as agent, chunking(agent.url, rate=NEVER_AGAIN) as chunker:
        [member] = chunker.pool.instances
        member.breaker.force_open("the test")
        for _ in range(3):
            await chunker.refusal(chunk(3))
        member.breaker.reset("the test")
        report = await chunker.run(chunk(3))
        assert 2 == len(agent.calls)
    assert ([0, 1], (2,)) == (places(report.outcomes), report.left)


async def test_a_chunk_begins_no_calls_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more urgent goes before the rest of it."""
    monkeypatch.setattr(chunk_course, "BEGIN_SECONDS", 0.3)
    async with (
        Agent(Reply(delay=0.1)) as agent,
        chunking(agent.url, policy=patient(1)) as chunker,
    ):
        report = await chunker.run(chunk(100))
    done = places(report.outcomes)
    assert 1 <= len(done) <= 4
    assert list(range(100)) == [*done, *report.left]


async def test_all_free_slots_are_used_and_no_more() -> None:
    """They are there again afterwards."""
    async with (
        Agent(Reply(delay=0.05)) as agent,
        chunking(agent.url, policy=patient(3)) as chunker,
    ):
        report = await chunker.run(chunk(30))
    assert (list(range(30)), 3, 0) == (
        places(report.outcomes),
        agent.most_at_once,
        chunker.pool.slots.used,
    )


async def test_few_calls_are_made_before_it_is_known_how_large_the_answers_are() -> None:
    """The third waits for the first answer."""
    async with (
        Agent(Reply(delay=0.2)) as agent,
        chunking(agent.url, policy=patient(10)) as chunker,
    ):
        report = await chunker.run(chunk(10))
    times = [call.at for call in agent.calls]
    assert list(range(10)) == places(report.outcomes)
    assert times[1] - times[0] < times[2] - times[0]
    assert 0.19 < times[2] - times[0]


async def test_an_agent_that_takes_its_time_gets_more_calls_all_the_same() -> None:
    """The first of them may not be answered for long, or never."""
    async with (
        Agent(decide=lambda call: Reply(hang=call.body["n"] < 2)) as agent,
        chunking(agent.url, policy=patient(10)) as chunker,
    ):
        running = asyncio.create_task(chunker.run(chunk(6, attempt_timeout=30)))
        await agent.called(6)
        agent.release()
        report = await running
    assert list(range(6)) == places(report.outcomes)


async def test_two_chunks_share_the_slots() -> None:
    """Together they have no more in flight than one."""
    async with (
        Agent(Reply(delay=0.02)) as agent,
        chunking(agent.url, policy=patient(4)) as chunker,
    ):
        reports = await asyncio.gather(
            *(chunker.run(chunk(20, first=first)) for first in (0, 20, 40))
        )
    assert list(range(60)) == sorted(n for each in reports for n in places(each.outcomes))
    assert (4, 0) == (agent.most_at_once, chunker.pool.slots.used)


async def test_a_chunk_gives_way_to_who_waits_for_a_slot() -> None:
    """A single call does not wait until a chunk has ended; one slot stays the chunk's own."""
    async with (
        Agent(Reply(delay=0.05)) as agent,
        chunking(agent.url, policy=patient(3)) as chunker,
    ):
        running = asyncio.create_task(chunker.run(chunk(90)))
        await agent.called(6)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await chunker.pool.slots.take()
            await chunker.pool.slots.take()
        assert not running.done()
        assert len(agent.calls) < 90
        chunker.pool.slots.give_back()
        chunker.pool.slots.give_back()
        report = await running
    assert list(range(90)) == places(report.outcomes)


async def test_a_slot_that_becomes_free_is_used_at_once() -> None:
    """By a chunk that began with one."""
    async with (
        Agent(decide=lambda call: Reply(hang=call.body["n"] < 6)) as agent,
        chunking(agent.url, policy=patient(3)) as chunker,
    ):
        # By then it is known how large the answers are.
        await chunker.run(chunk(1, first=6))
        slots = chunker.pool.slots
        assert [True, True] == [slots.try_take(), slots.try_take()]
        running = asyncio.create_task(chunker.run(chunk(6)))
        await agent.called(2)
        slots.give_back()
        slots.give_back()
        await agent.called(4)
        agent.release()
        report = await running
    assert list(range(6)) == places(report.outcomes)


async def test_a_cancellation_cuts_off_what_is_in_flight() -> None:
    """The report tells what had ended, and that the others are cancelled."""
    async with (
        Agent(decide=lambda call: Reply(hang=call.body["n"] > 1)) as agent,
        chunking(agent.url, policy=patient(3)) as chunker,
    ):
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(9)))
        await agent.called(5)
        environment.cancel()
        report = await running
        for call in agent.calls[2:]:
            await call.abandonment()
        assert 5 == len(agent.calls)
    assert ([0, 1], tuple(range(2, 9)), ()) == (
        sorted(by_position(report)),
        report.cancelled,
        report.left,
    )
    assert 0 == chunker.pool.slots.used


async def test_a_worker_that_stops_begins_no_further_call() -> None:
    """What is in flight ends as it will, the others are left for another worker."""
    async with Agent(Reply(hang=True)) as agent, chunking(agent.url, policy=patient(2)) as chunker:
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(5)))
        await agent.called(2)
        environment.worker_shutdown()
        agent.release()
        report = await running
        assert 2 == len(agent.calls)
    assert ([0, 1], (2, 3, 4)) == (places(report.outcomes), report.left)


async def test_what_outlasts_a_workers_grace_is_left() -> None:
    """Nobody wished to cancel it."""
    async with Agent(Reply(hang=True)) as agent, chunking(agent.url, policy=patient(2)) as chunker:
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(5)))
        await agent.called(2)
        environment.worker_shutdown()
        environment.cancel(ActivityCancellationDetails(worker_shutdown=True))
        report: ChunkReport = await running
        for call in agent.calls:
            await call.abandonment()
    assert ((), (0, 1, 2, 3, 4), ()) == (report.outcomes, report.left, report.cancelled)


async def test_heartbeats_tell_what_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """While other calls go on."""
    monkeypatch.setattr("activities.run_chunk.HEARTBEAT_SECONDS", 0.02)
    async with (
        Agent(decide=lambda call: Reply(hang=call.body["n"] == 2)) as agent,
        chunking(agent.url) as chunker,
    ):
        running = asyncio.create_task(chunker.run(chunk(3)))

        async def both_told() -> bool:
            return any(places(each.outcomes) == [0, 1] for each in chunker.told)

        await eventually(both_told)
        assert not running.done()
        agent.release()
        await running
