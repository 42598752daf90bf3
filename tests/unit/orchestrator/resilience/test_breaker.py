"""The breaker closed and open: what opens it, for how long, and whom it tells."""

import logging
from collections.abc import Callable

import pytest

from orchestrator.resilience.breaker import Breaker, Permit
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState, Transition


class Clock:
    """A clock that the test turns; it tells the seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def acquired(breaker: Breaker) -> Permit:
    """A permit that there must be."""
    permit = breaker.try_acquire()
    assert permit is not None
    return permit


def fail(breaker: Breaker, times: int = 1, seconds: float = 1.0) -> None:
    """So many calls in turn that fail."""
    for _ in range(times):
        acquired(breaker).failure(seconds, "503 from a")


def succeed(breaker: Breaker, times: int = 1, seconds: float = 1.0) -> None:
    """So many calls in turn that succeed."""
    for _ in range(times):
        acquired(breaker).success(seconds)


def opened(clock: Clock, policy: BreakerPolicy | None = None) -> Breaker:
    """A breaker that five failures in a row have just opened."""
    breaker = Breaker(policy, clock)
    fail(breaker, 5)
    return breaker


def half_opened(clock: Clock, policy: BreakerPolicy | None = None) -> Breaker:
    """A breaker that was opened, and whose time is up."""
    breaker = opened(clock, policy)
    clock.now += breaker.policy.open_seconds
    return breaker


def test_a_new_one_is_closed() -> None:
    """It admits calls and has nothing to tell."""
    breaker = Breaker(clock=Clock())
    assert (BreakerState.CLOSED, True, None, 1000.0, 0, "") == (
        breaker.state,
        breaker.available,
        breaker.retry_at,
        breaker.since,
        breaker.failures,
        breaker.last_reason,
    )


def test_failures_in_a_row_open_it() -> None:
    """The fifth does, and the reason says so."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    fail(breaker, 4)
    assert "closed" == breaker.state
    fail(breaker)
    assert "open" == breaker.state
    assert "failures in a row: 5, the last: 503 from a" == breaker.last_reason


def test_a_failure_without_words_opens_it_too() -> None:
    """The reason is then the count alone."""
    breaker = Breaker(BreakerPolicy(consecutive_failures=1), Clock())
    acquired(breaker).failure(1.0)
    assert "failures in a row: 1" == breaker.last_reason


def test_a_success_ends_the_row() -> None:
    """Failures count from the last success."""
    breaker = Breaker(clock=Clock())
    fail(breaker, 4)
    succeed(breaker)
    fail(breaker, 4)
    assert (BreakerState.CLOSED, 4) == (breaker.state, breaker.failures)


def test_an_ignored_call_neither_counts_nor_ends_the_row() -> None:
    """A cancelled call and a 429 leave the row as it is."""
    breaker = Breaker(clock=Clock())
    fail(breaker, 4)
    acquired(breaker).ignore()
    assert 4 == breaker.failures
    fail(breaker)
    assert "open" == breaker.state


def test_without_a_limit_no_row_opens_it() -> None:
    """With None for the row and for the rates it never opens."""
    breaker = Breaker(BreakerPolicy(consecutive_failures=None), Clock())
    fail(breaker, 500)
    assert "closed" == breaker.state


def test_an_open_one_admits_none_before_its_time() -> None:
    """It tells from when it may be tried."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 29.999
    assert (False, None, 1030.0) == (breaker.available, breaker.try_acquire(), breaker.retry_at)
    clock.now = 1030.0
    assert (True, BreakerState.HALF_OPEN, None) == (
        breaker.available,
        breaker.state,
        breaker.retry_at,
    )


def test_it_is_half_open_since_its_time_was_up() -> None:
    """Not since somebody looked."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 500
    assert 1030.0 == breaker.since


def test_each_failed_round_of_trials_doubles_the_time() -> None:
    """From 30 seconds up to the cap of 300."""
    clock = Clock()
    breaker = opened(clock)
    times = []
    for _ in range(6):
        assert breaker.retry_at is not None
        times.append(breaker.retry_at - clock.now)
        clock.now = breaker.retry_at
        fail(breaker)
    assert [30.0, 60.0, 120.0, 240.0, 300.0, 300.0] == times


def test_the_time_stays_finite_after_thousands_of_rounds() -> None:
    """The growth stops at the cap instead of overflowing."""
    clock = Clock()
    breaker = opened(clock, BreakerPolicy(open_backoff=10.0))
    for _ in range(2000):
        clock.now += 300
        fail(breaker)
    assert clock.now + 300 == breaker.retry_at


def test_closing_forgets_the_growth() -> None:
    """After a failed round, a good one, and a new row of failures it is 30 seconds again."""
    clock = Clock()
    breaker = half_opened(clock)
    fail(breaker)
    clock.now += 60
    succeed(breaker, 3)
    fail(breaker, 5)
    assert clock.now + 30 == breaker.retry_at


@pytest.mark.parametrize("end", [Permit.success, Permit.failure])
def test_late_outcomes_change_nothing(end: Callable[[Permit, float], None]) -> None:
    """A call made while it was closed says nothing once it has opened, nor later."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    early, earlier = acquired(breaker), acquired(breaker)
    fail(breaker, 5)
    end(early, 1.0)
    assert (BreakerState.OPEN, 1030.0, 5) == (breaker.state, breaker.retry_at, breaker.failures)
    clock.now += 30
    end(earlier, 31.0)
    assert (BreakerState.HALF_OPEN, 5) == (breaker.state, breaker.failures)


def test_only_the_first_word_on_a_call_counts() -> None:
    """A permit that has been used does nothing."""
    breaker = Breaker(BreakerPolicy(consecutive_failures=2), Clock())
    permit = acquired(breaker)
    permit.failure(1.0)
    permit.failure(1.0)
    permit.success(1.0)
    permit.ignore()
    assert (BreakerState.CLOSED, 1) == (breaker.state, breaker.failures)


def test_a_clock_that_goes_backwards_stands_still() -> None:
    """The time open neither shrinks nor grows by it."""
    clock = Clock()
    breaker = Breaker(BreakerPolicy(consecutive_failures=1), clock)
    clock.now = 5.0
    fail(breaker)
    assert (BreakerState.OPEN, 1030.0) == (breaker.state, breaker.retry_at)
    clock.now = 1030.0
    assert "half_open" == breaker.state


def test_the_listener_hears_of_every_change() -> None:
    """With when, why, and that this process found it out."""
    clock = Clock()
    heard: list[Transition] = []
    breaker = Breaker(BreakerPolicy(consecutive_failures=1), clock, heard.append)
    fail(breaker)
    clock.now += 40
    succeed(breaker, 3)
    closed, opened_, trying = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
    assert [
        Transition(closed, opened_, 1000.0, "failures in a row: 1, the last: 503 from a", own=True),
        Transition(opened_, trying, 1030.0, "it may be tried again", own=True),
        Transition(trying, closed, 1040.0, "successful trial calls: 3", own=True),
    ] == heard


def test_the_listener_finds_the_change_complete() -> None:
    """What it reads from the breaker fits what it was told."""
    clock = Clock()
    seen: list[tuple[BreakerState, float | None, bool]] = []
    breaker = Breaker(
        BreakerPolicy(consecutive_failures=1),
        clock,
        lambda _: seen.append((breaker.state, breaker.retry_at, breaker.available)),
    )
    fail(breaker)
    assert [(BreakerState.OPEN, 1030.0, False)] == seen


def test_a_listener_may_change_the_state() -> None:
    """It is told of its own change after it has returned, in order."""
    heard: list[str] = []

    def reset(transition: Transition) -> None:
        heard.append(f"{transition.after} begins")
        if transition.after is BreakerState.OPEN:
            breaker.reset("not now")
        heard.append(f"{transition.after} ends")

    breaker = Breaker(BreakerPolicy(consecutive_failures=1), Clock(), reset)
    fail(breaker)
    assert ["open begins", "open ends", "closed begins", "closed ends"] == heard
    assert (BreakerState.CLOSED, True) == (breaker.state, breaker.available)


def test_a_listener_that_stops_the_trial_is_obeyed() -> None:
    """No permit is given when it forces the breaker open at the very moment of trying."""
    clock = Clock()

    def stop(transition: Transition) -> None:
        if transition.after is BreakerState.HALF_OPEN:
            breaker.force_open("not now")

    breaker = Breaker(BreakerPolicy(consecutive_failures=1), clock, stop)
    fail(breaker)
    clock.now += 30
    assert None is breaker.try_acquire()


def test_a_failing_listener_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The call goes on, and so do the changes to come."""
    clock = Clock()

    def listener(transition: Transition) -> None:
        raise RuntimeError(f"cannot tell of {transition.after}")

    breaker = Breaker(BreakerPolicy(consecutive_failures=1), clock, listener)
    with caplog.at_level(logging.ERROR):
        fail(breaker)
        clock.now += 30
        succeed(breaker, 3)
    assert "closed" == breaker.state
    assert ["closed -> open", "open -> half_open", "half_open -> closed"] == [
        record.message.removeprefix("A listener failed at ") for record in caplog.records
    ]
