"""What is admitted, in which order it is refused, and what a refusal costs: nothing."""

from dataclasses import replace

import pytest

from orchestrator.admission import SETTLE_SECONDS
from orchestrator.config import (
    ErrorRecovery,
)
from orchestrator.engine.overview import RENEW_SECONDS, Snapshot
from orchestrator.errors import AgentUnavailable, QueueFull, RateLimited
from orchestrator.fleet.records import AgentRecord, FleetSnapshot, LimitRecord
from orchestrator.models import Dispatch, LimitMode, RateLimit, Route
from orchestrator.resilience.limiter import Decision
from orchestrator.routing import agent_queue, led_by
from tests.support.plans import AGENT, plan
from tests.unit.orchestrator.admission_house import LAST, SPARE, House, fallbacks, limited


async def test_without_limits_a_task_is_admitted_as_it_is() -> None:
    """And nobody is asked."""
    house = House()
    wanted = plan(fallbacks=fallbacks(SPARE))
    assert wanted is await house.admit(wanted)
    assert 0 == house.engine.asked


class TestAvailability:
    """Is there anybody to call?"""

    async def test_an_agent_whose_breakers_are_open_is_refused(self) -> None:
        """By its name, and no token is taken."""
        house = House(**limited(burst=1))
        house.trip(AGENT)
        with pytest.raises(AgentUnavailable, match="Agent 'reader' is currently unavailable"):
            await house.admit()
        house.pools.of_agent(AGENT).instances[0].breaker.reset("mended")
        await house.admit()

    async def test_it_may_be_accepted_all_the_same(self) -> None:
        """``when_unavailable: queue``: the task waits."""
        house = House(error_recovery=ErrorRecovery(when_unavailable="queue"))
        house.trip(AGENT)
        assert AGENT == (await house.admit()).agent

    async def test_the_first_fallback_that_is_there_is_taken(self) -> None:
        """The others follow in their order, and the plan says so."""
        house = House()
        house.trip(AGENT, SPARE)

        found = await house.admit(plan(fallbacks=fallbacks(SPARE, LAST)))

        assert (LAST, "/last", agent_queue(LAST)) == (found.agent, found.endpoint, found.task_queue)
        assert [LAST, AGENT, SPARE] == [route.agent for route in found.routes]
        assert [Route, Route] == [type(route) for route in found.fallbacks]
        assert "exact pattern read; fallback, reader and spare being unavailable" == found.chosen_by

    async def test_a_fallback_is_better_than_waiting(self) -> None:
        """Also where an unavailable agent's tasks are accepted."""
        house = House(error_recovery=ErrorRecovery(when_unavailable="queue"))
        house.trip(AGENT)
        assert SPARE == (await house.admit(plan(fallbacks=fallbacks(SPARE)))).agent

    async def test_with_all_away_the_first_is_named(self) -> None:
        """It is whom the caller wanted."""
        house = House()
        house.trip(AGENT, SPARE)
        with pytest.raises(AgentUnavailable, match="'reader'"):
            await house.admit(plan(fallbacks=fallbacks(SPARE)))

    def test_a_plan_led_by_its_own_agent_stays_as_it_is(self) -> None:
        """Nothing is copied."""
        wanted = plan(fallbacks=fallbacks(SPARE))
        assert wanted is led_by(wanted, 0)


class TestTokens:
    """The agent's bucket in mode reject."""

    async def test_an_empty_bucket_refuses(self) -> None:
        """It says when there is a token again; then there is."""
        house = House(**limited())
        assert 3 == await house.most()
        with pytest.raises(RateLimited, match="Rate limit exceeded for agent 'reader'") as caught:
            await house.admit()
        assert (1.0, 60) == (caught.value.retry_after, caught.value.limit.rate)
        house.clock.now += 1
        assert 1 == await house.most()

    async def test_the_ticket_says_what_is_left(self) -> None:
        """For the answer's headers."""
        house = House(**limited())
        async with house.admission.admitted(plan()) as ticket:
            pass
        assert ticket.decision is not None
        assert (2, 1.0) == (ticket.decision.remaining, ticket.decision.full_after)

    async def test_a_replay_costs_nothing(self) -> None:
        """Its token is given back."""
        house = House(**limited())
        for _ in range(10):
            await house.admit(replayed=True)
        assert 3 == await house.most()

    async def test_a_start_that_failed_costs_nothing(self) -> None:
        """Nor does it count as waiting."""
        house = House(queue=3, **limited())
        for _ in range(10):
            with pytest.raises(OSError, match="engine"):
                await self._fail(house)
        assert 3 == await house.most()

    async def _fail(self, house: House) -> None:
        async with house.admission.admitted(plan()):
            raise OSError("engine")

    async def test_a_full_queue_costs_nothing(self) -> None:
        """The token that was taken before is given back."""
        house = House(waiting=1, queue=1, **limited())
        for _ in range(10):
            with pytest.raises(QueueFull):
                await house.admit()
        house.engine.waiting = 0
        house.engine.refresh()
        async with house.admission.admitted(plan()) as ticket:
            pass
        assert ticket.decision is not None
        assert 2 == ticket.decision.remaining

    async def test_a_fallback_has_its_own_bucket(self) -> None:
        """The first agent's is left alone, and so is none."""
        house = House(**limited(burst=1))
        await house.admit()
        house.trip(AGENT)
        assert SPARE == (await house.admit(plan(fallbacks=fallbacks(SPARE)))).agent

    async def test_operators_change_limits_at_run_time(self) -> None:
        """Also of an agent that had none."""
        house = House()
        record = AgentRecord(
            instances=(), limits=LimitRecord(rate=60, burst=2, mode=LimitMode.REJECT)
        )
        house.admission.sync(FleetSnapshot(version=1, agents={AGENT: record}))
        assert 2 == await house.most()


class Shared:
    """Buckets in a Redis that answers, or does not."""

    def __init__(self, *, decision: bool | None) -> None:
        self.decision = decision
        self.given_back = 0

    async def try_take(self, _: str, limit: RateLimit) -> Decision | None:
        """The scripted answer."""
        if self.decision is None:
            return None
        return Decision(limit, 0, self.decision)

    async def give_back(self, *_: object) -> None:
        """Count."""
        self.given_back += 1


class TestSharedTokens:
    """The bucket that all API processes share."""

    def shared(self, house: House, *, decision: bool | None) -> Shared:
        """Have the house share its buckets."""
        shared = Shared(decision=decision)
        house.admission._buckets._shared = shared  # type: ignore[assignment]
        return shared

    async def test_the_shared_bucket_decides(self) -> None:
        """Though there are tokens here; and the own ones stay."""
        house = House(**limited())
        shared = self.shared(house, decision=False)
        with pytest.raises(RateLimited):
            await house.admit()
        shared.decision = None
        assert 3 == await house.most()

    async def test_losing_it_fills_no_bucket(self) -> None:
        """What was taken there is gone here too."""
        house = House(**limited())
        shared = self.shared(house, decision=True)
        for _ in range(2):
            await house.admit()
        shared.decision = None
        assert 1 == await house.most()

    async def test_a_replay_gives_back_both(self) -> None:
        """Its token, here and there."""
        house = House(**limited())
        shared = self.shared(house, decision=True)
        await house.admit(replayed=True)
        shared.decision = None
        assert (1, 3) == (shared.given_back, await house.most())


class TestMeteredQueue:
    """Mode queue: the engine meters, nobody is refused."""

    async def test_nothing_is_refused(self) -> None:
        """And no bucket is kept."""
        house = House(**limited(burst=1, mode=LimitMode.QUEUE))
        async with house.admission.admitted(plan()) as ticket:
            assert ticket.decision is None
        assert 50 == await house.most()

    async def test_a_call_does_not_pass_by_the_queue(self) -> None:
        """An inline one goes by it instead, that of a fallback too."""
        house = House(**limited(mode=LimitMode.QUEUE))
        inline = plan(dispatch=Dispatch.INLINE)
        assert Dispatch.QUEUED is (await house.admit(inline)).dispatch
        other = plan(
            agent=SPARE,
            task_queue=agent_queue(SPARE),
            dispatch=Dispatch.INLINE,
            fallbacks=fallbacks(AGENT),
        )
        assert Dispatch.QUEUED is (await house.admit(other)).dispatch

    async def test_others_stay_inline(self) -> None:
        """Where nothing is metered."""
        house = House(**limited())
        assert Dispatch.INLINE is (await house.admit(plan(dispatch=Dispatch.INLINE))).dispatch


class TestBoundedQueue:
    """At most max_queue_size wait."""

    async def test_what_was_admitted_since_counts(self) -> None:
        """7 wait, so that 3 of 10 are left; only then the engine is asked, which says the same."""
        house = House(waiting=7, queue=10)
        for _ in range(3):
            await house.admit()
        assert 0 == house.engine.asked
        house.engine.waiting = 10
        with pytest.raises(QueueFull, match="Queue is full"):
            await house.admit()
        assert 1 == house.engine.asked

    async def test_what_the_engine_could_not_count_yet_is_waited_for(self) -> None:
        """They may be short; here they are not."""
        house = House(waiting=7, queue=10)
        for _ in range(3):
            await house.admit()
        count = house.engine.refresh

        def slow() -> Snapshot:
            if house.clock.now > 1000 + SETTLE_SECONDS / 2:
                house.engine.waiting = 10
            return count()

        house.engine.refresh = slow  # type: ignore[method-assign]
        with pytest.raises(QueueFull):
            await house.admit()
        assert 1 < house.engine.asked < 5

    async def test_short_tasks_do_not_fill_an_empty_queue(self) -> None:
        """The engine says that they have gone."""
        house = House(queue=10)
        for _ in range(100):
            await house.admit()
        assert 0 < house.engine.asked <= 10 * (SETTLE_SECONDS / RENEW_SECONDS + 1)

    async def test_what_the_engine_counts_is_not_counted_twice(self) -> None:
        """Once a start has settled, it is in the engine's number or nowhere."""
        house = House(queue=10)
        for _ in range(5):
            await house.admit()
        house.clock.now += 2 * SETTLE_SECONDS
        house.engine.waiting = 5
        house.engine.refresh()
        for _ in range(5):
            await house.admit()
        assert 0 == house.engine.asked

    async def test_starts_under_way_count(self) -> None:
        """However long ago they began."""
        house = House(queue=1)
        async with house.admission.admitted(plan()):
            house.clock.now += 60
            house.engine.refresh()
            with pytest.raises(QueueFull):
                await house.admit()
        assert house.engine.asked <= SETTLE_SECONDS / RENEW_SECONDS + 1

    async def test_inline_tasks_do_not_wait(self) -> None:
        """They go by no queue."""
        house = House(waiting=10, queue=10)
        await house.admit(plan(dispatch=Dispatch.INLINE))
        assert 0 == house.engine.asked

    async def test_an_engine_that_does_not_answer_makes_no_room(self) -> None:
        """What was known last holds, and what was admitted since."""
        house = House(queue=2)
        house.engine.last = replace(house.engine.last, reachable=False)
        house.engine.refresh = lambda: house.engine.last  # type: ignore[method-assign]
        house.clock.now += 60
        assert 2 == await house.most()


class TestPreview:
    """What admission would say."""

    async def test_it_takes_nothing(self) -> None:
        """However often it is asked."""
        house = House(queue=1, **limited(burst=1))
        for _ in range(5):
            assert AGENT == (await house.admission.preview(plan())).agent
        await house.admit()

    async def test_it_refuses_as_an_admission(self) -> None:
        """Each refusal in its turn."""
        house = House(waiting=1, queue=1, **limited(burst=1))
        with pytest.raises(QueueFull):
            await house.admission.preview(plan())
        await house.admit(plan(dispatch=Dispatch.INLINE))
        with pytest.raises(RateLimited):
            await house.admission.preview(plan())
        house.trip(AGENT)
        with pytest.raises(AgentUnavailable):
            await house.admission.preview(plan())

    async def test_it_shows_the_plan_that_would_be_used(self) -> None:
        """Of the fallback."""
        house = House()
        house.trip(AGENT)
        found = await house.admission.preview(plan(fallbacks=fallbacks(SPARE)))
        assert [SPARE, AGENT] == [route.agent for route in found.routes]
