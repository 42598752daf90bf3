"""The breaker half-open: how many trials there are, and what they decide."""

import pytest

from orchestrator.resilience.breaker import Breaker
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState
from tests.unit.orchestrator.resilience.test_breaker import (
    Clock,
    acquired,
    fail,
    half_opened,
    succeed,
)


def admitted(breaker: Breaker) -> int:
    """How many calls it admits at once now."""
    count = 0
    while breaker.try_acquire() is not None:
        count += 1
    return count


def test_it_admits_as_many_trials_as_permits() -> None:
    """The fourth of three finds none."""
    breaker = half_opened(Clock())
    assert 3 == admitted(breaker)
    assert not breaker.available


def test_enough_successes_close_it() -> None:
    """As many as permits, unless said otherwise."""
    breaker = half_opened(Clock())
    succeed(breaker, 2)
    assert "half_open" == breaker.state
    succeed(breaker)
    assert (BreakerState.CLOSED, 0) == (breaker.state, breaker.failures)


@pytest.mark.parametrize(("permits", "successes"), [(1, 4), (4, 1)])
def test_the_successes_needed_may_differ_from_the_permits(permits: int, successes: int) -> None:
    """More of them take several rounds, fewer leave permits unused."""
    policy = BreakerPolicy(half_open_permits=permits, half_open_successes=successes)
    breaker = half_opened(Clock(), policy)
    succeed(breaker, successes - 1)
    assert "half_open" == breaker.state
    succeed(breaker)
    assert "closed" == breaker.state


def test_one_failure_reopens_it() -> None:
    """However many successes came before."""
    clock = Clock()
    breaker = half_opened(clock)
    succeed(breaker, 2)
    fail(breaker)
    assert (BreakerState.OPEN, clock.now + 60) == (breaker.state, breaker.retry_at)
    assert "a trial call failed, the last: 503 from a" == breaker.last_reason


def test_failures_of_trials_lengthen_the_row() -> None:
    """The count says for how long the instance has been failing."""
    breaker = half_opened(Clock())
    fail(breaker)
    assert 6 == breaker.failures


def test_an_ignored_trial_gives_its_permit_back() -> None:
    """And decides nothing."""
    breaker = half_opened(Clock())
    trials = [acquired(breaker) for _ in range(3)]
    trials[0].ignore()
    trials[0].ignore()
    assert 1 == admitted(breaker)
    assert "half_open" == breaker.state


def test_a_permit_is_given_back_when_its_block_is_left() -> None:
    """By an error or not, if nothing was said of the outcome."""
    breaker = half_opened(Clock())
    with pytest.raises(KeyboardInterrupt), acquired(breaker):
        raise KeyboardInterrupt
    assert 3 == admitted(breaker)


def test_what_was_said_within_the_block_holds() -> None:
    """Leaving it adds nothing."""
    breaker = half_opened(Clock(), BreakerPolicy(half_open_permits=1))
    with acquired(breaker) as permit:
        permit.success(1.0)
    assert "closed" == breaker.state


def test_trials_of_the_round_before_do_not_count() -> None:
    """Their permits are not given back to this round, and their successes do not close it."""
    clock = Clock()
    breaker = half_opened(clock)
    old = [acquired(breaker) for _ in range(3)]
    old[0].failure(1.0)
    clock.now += 60
    new = acquired(breaker)
    old[1].success(61.0)
    old[2].ignore()
    assert 2 == admitted(breaker)
    new.success(1.0)
    assert "half_open" == breaker.state


def test_trials_that_never_end_open_it_again() -> None:
    """For as long as before, from when they counted as lost; the growth is for failures."""
    clock = Clock()
    breaker = half_opened(clock, BreakerPolicy(half_open_wait_seconds=100.0))
    admitted(breaker)
    started = clock.now
    states = []
    for clock.now in (started + 99, started + 100):
        states.append(breaker.state)
    assert ["half_open", "open"] == states
    clock.now = started + 110
    assert (BreakerState.OPEN, started + 130) == (breaker.state, breaker.retry_at)
    assert "trial calls without an outcome in time: 3" == breaker.last_reason
    clock.now = started + 130
    assert 3 == admitted(breaker)


def test_a_long_silence_leads_to_a_new_round_at_once() -> None:
    """When nobody looked while it opened and its time ran out."""
    clock = Clock()
    breaker = half_opened(clock, BreakerPolicy(half_open_wait_seconds=100.0))
    late = acquired(breaker)
    since = clock.now + 100 + 30
    clock.now += 1000
    assert (BreakerState.HALF_OPEN, since) == (breaker.state, breaker.since)
    late.success(1000.0)
    assert 3 == admitted(breaker)


def test_the_wait_begins_anew_with_each_trial_that_starts_or_ends() -> None:
    """It is the silence that is measured."""
    clock = Clock()
    breaker = half_opened(clock, BreakerPolicy(half_open_wait_seconds=100.0))
    since = breaker.since
    first, _, third = (acquired(breaker) for _ in range(3))
    clock.now += 90
    first.success(90.0)
    clock.now += 90
    acquired(breaker)
    clock.now += 90
    third.ignore()
    clock.now += 90
    assert ("half_open", since) == (breaker.state, breaker.since)


def test_without_trials_in_flight_it_waits_for_ever() -> None:
    """An instance that nobody calls stays ready to be tried."""
    clock = Clock()
    breaker = half_opened(clock)
    succeed(breaker)
    since = clock.now
    clock.now += 1e6
    assert ("half_open", since) == (breaker.state, breaker.since)


SLOW = BreakerPolicy(slow_call_rate=0.6, slow_call_seconds=5.0)


def test_slow_trials_reopen_it() -> None:
    """Successes that reach the rate of slow calls do not close it."""
    clock = Clock()
    breaker = half_opened(clock, SLOW)
    succeed(breaker, 2, seconds=6.0)
    assert "half_open" == breaker.state
    succeed(breaker)
    assert (BreakerState.OPEN, clock.now + 60) == (breaker.state, breaker.retry_at)
    assert "slow trial calls: 2 of 3" == breaker.last_reason


def test_a_few_slow_trials_do_not_keep_it_from_closing() -> None:
    """Below the rate they are successes like others."""
    breaker = half_opened(Clock(), SLOW)
    succeed(breaker, 1, seconds=6.0)
    succeed(breaker, 2)
    assert "closed" == breaker.state
