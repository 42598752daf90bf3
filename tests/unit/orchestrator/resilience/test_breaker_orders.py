"""What an operator and the other processes tell a breaker."""

import pytest

from orchestrator.resilience.breaker import Breaker
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState, Transition
from tests.unit.orchestrator.resilience.test_breaker import (
    Clock,
    acquired,
    fail,
    half_opened,
    opened,
    succeed,
)


def test_forced_open_it_admits_none_ever() -> None:
    """No time ends it."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.force_open("being replaced")
    clock.now += 1e6
    assert (BreakerState.FORCED_OPEN, False, None, None, "being replaced") == (
        breaker.state,
        breaker.available,
        breaker.try_acquire(),
        breaker.retry_at,
        breaker.last_reason,
    )


def test_disabled_it_admits_all_and_records_nothing() -> None:
    """Hundreds of failures change nothing."""
    breaker = opened(Clock())
    breaker.disable("its errors are known")
    fail(breaker, 200)
    assert (BreakerState.DISABLED, True, 5) == (breaker.state, breaker.available, breaker.failures)


def test_reset_closes_it() -> None:
    """With no failure counted and the time open at its start again."""
    clock = Clock()
    breaker = half_opened(clock)
    fail(breaker)
    breaker.reset("repaired")
    assert (BreakerState.CLOSED, 0, None) == (breaker.state, breaker.failures, breaker.retry_at)
    fail(breaker, 5)
    assert clock.now + 30 == breaker.retry_at


def test_reset_of_a_closed_one_forgets_its_counts() -> None:
    """Calls that began before it do not count either, and no change is told."""
    clock = Clock()
    heard: list[Transition] = []
    breaker = Breaker(clock=clock, on_change=heard.append)
    early = acquired(breaker)
    fail(breaker, 4)
    clock.now += 9
    breaker.reset("a new version")
    early.failure(1.0)
    assert (0, "a new version", 1000.0) == (breaker.failures, breaker.last_reason, breaker.since)
    assert [] == heard


def test_an_order_repeated_is_no_change() -> None:
    """The state's age stays, the reason is the latest."""
    clock = Clock()
    heard: list[Transition] = []
    breaker = Breaker(clock=clock, on_change=heard.append)
    breaker.force_open("first")
    clock.now += 9
    breaker.force_open("second")
    assert (1, 1000.0, "second") == (len(heard), breaker.since, breaker.last_reason)


def test_an_order_is_not_the_breakers_own_change() -> None:
    """So that it need not be told to the other processes."""
    heard: list[Transition] = []
    Breaker(clock=Clock(), on_change=heard.append).disable("x")
    assert [False] == [each.own for each in heard]


def test_calls_made_while_disabled_do_not_count_after_it() -> None:
    """Their outcomes come late."""
    breaker = Breaker(BreakerPolicy(consecutive_failures=1), Clock())
    breaker.disable("x")
    permit = acquired(breaker)
    breaker.reset("y")
    permit.failure(1.0)
    assert "closed" == breaker.state


def test_another_process_opens_ours() -> None:
    """For the time that the other has left, without a failure of ours."""
    clock = Clock()
    heard: list[Transition] = []
    breaker = Breaker(clock=clock, on_change=heard.append)
    breaker.adopt(
        BreakerState.OPEN, version=1, age_seconds=2.0, remaining_seconds=28.0, reason="theirs"
    )
    assert (BreakerState.OPEN, 1028.0, 0) == (breaker.state, breaker.retry_at, breaker.failures)
    assert [
        Transition(BreakerState.CLOSED, BreakerState.OPEN, 1000.0, "theirs", own=False)
    ] == heard


def test_an_adopted_opening_does_not_grow_ours() -> None:
    """Only a failed trial does, from the time that we would have been open at first."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.adopt(BreakerState.OPEN, version=1, age_seconds=0.0, remaining_seconds=240.0)
    breaker.reset("x")
    fail(breaker, 5)
    assert clock.now + 30 == breaker.retry_at


@pytest.mark.parametrize(("remaining", "expected"), [(10.0, 1030.0), (60.0, 1061.0)])
def test_an_open_one_stays_open_for_the_longer_time(remaining: float, expected: float) -> None:
    """Ours or the other's."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    breaker.adopt(BreakerState.OPEN, version=1, age_seconds=0.0, remaining_seconds=remaining)
    assert expected == breaker.retry_at


def test_what_is_adopted_is_capped_too() -> None:
    """Another's policy cannot keep ours open beyond our own cap."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.adopt(BreakerState.OPEN, version=1, age_seconds=0.0, remaining_seconds=1e9)
    assert clock.now + 300 == breaker.retry_at


def test_an_opening_that_is_over_says_nothing() -> None:
    """Without seconds left the other may be tried, and so may ours."""
    breaker = Breaker(clock=Clock())
    breaker.adopt(BreakerState.OPEN, version=1, age_seconds=30.0, remaining_seconds=0.0)
    assert "closed" == breaker.state


def test_another_process_closes_ours() -> None:
    """Its trials came after our last word, so ours need not be made."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    breaker.adopt(BreakerState.CLOSED, version=1, age_seconds=5.0, reason="theirs")
    assert (BreakerState.CLOSED, "theirs", 0) == (
        breaker.state,
        breaker.last_reason,
        breaker.failures,
    )


def test_another_process_closes_ours_half_open() -> None:
    """That our time was up proved nothing, though it came later."""
    clock = Clock()
    breaker = half_opened(clock)
    breaker.adopt(BreakerState.CLOSED, version=1, age_seconds=5.0)
    assert "closed" == breaker.state


def test_a_closing_older_than_our_opening_says_nothing() -> None:
    """Our calls have failed since."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    breaker.adopt(BreakerState.CLOSED, version=1, age_seconds=10.0)
    assert "open" == breaker.state


def test_a_closing_older_than_our_failed_trial_says_nothing() -> None:
    """The trial is the later word."""
    clock = Clock()
    breaker = half_opened(clock)
    fail(breaker)
    clock.now += 1
    breaker.adopt(BreakerState.CLOSED, version=1, age_seconds=5.0)
    assert "open" == breaker.state


@pytest.mark.parametrize("later", [BreakerState.OPEN, BreakerState.CLOSED])
def test_records_that_arrive_out_of_order_are_told_apart(later: BreakerState) -> None:
    """The one that tells of the later change holds, though it came first."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    earlier = BreakerState.CLOSED if later is BreakerState.OPEN else BreakerState.OPEN
    breaker.adopt(later, version=2, age_seconds=1.0, remaining_seconds=25.0)
    breaker.adopt(earlier, version=1, age_seconds=2.0, remaining_seconds=25.0)
    assert later is breaker.state


def test_an_opening_older_than_our_closing_says_nothing() -> None:
    """Our trials have succeeded since, whatever time the record has left."""
    clock = Clock()
    breaker = half_opened(clock)
    succeed(breaker, 3)
    clock.now += 10
    breaker.adopt(BreakerState.OPEN, version=1, age_seconds=20.0, remaining_seconds=40.0)
    assert "closed" == breaker.state


def test_an_opening_older_than_our_reset_says_nothing() -> None:
    """The operator had the last word."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    breaker.reset("x")
    breaker.adopt(BreakerState.OPEN, version=1, age_seconds=5.0, remaining_seconds=25.0)
    assert "closed" == breaker.state


def test_a_record_is_adopted_once() -> None:
    """Seen again with an age that a trembling clock made younger, it does nothing."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.adopt(BreakerState.OPEN, version=7, age_seconds=1.0, remaining_seconds=10.0)
    clock.now += 10
    breaker.adopt(BreakerState.OPEN, version=7, age_seconds=10.9, remaining_seconds=0.1)
    assert "half_open" == breaker.state


@pytest.mark.parametrize(
    "state", [BreakerState.HALF_OPEN, BreakerState.FORCED_OPEN, BreakerState.DISABLED]
)
def test_other_states_are_not_adopted(state: BreakerState) -> None:
    """Each process makes its own trials, and the operator's orders come by other ways."""
    breaker = Breaker(clock=Clock())
    breaker.adopt(state, version=1, age_seconds=0.0, remaining_seconds=9.0)
    assert "closed" == breaker.state


def test_an_operators_state_outweighs_every_record() -> None:
    """Forced open it stays, and so it does when disabled."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.force_open("x")
    clock.now += 1
    breaker.adopt(BreakerState.CLOSED, version=1, age_seconds=0.0)
    assert "forced_open" == breaker.state
    breaker.disable("y")
    clock.now += 1
    breaker.adopt(BreakerState.OPEN, version=2, age_seconds=0.0, remaining_seconds=9.0)
    assert "disabled" == breaker.state
