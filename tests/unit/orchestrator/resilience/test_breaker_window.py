"""The breaker's rates over sliding windows, and the values that a policy refuses."""

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.resilience.breaker import Breaker
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState
from orchestrator.resilience.window import BUCKETS, CountWindow, RatePolicy, Tally, TimeWindow
from tests.unit.orchestrator.resilience.test_breaker import Clock, acquired, fail, succeed

CALLS = st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=60)


def half(**others: float) -> BreakerPolicy:
    """A policy that only looks at the failure rate."""
    return BreakerPolicy(
        **{"consecutive_failures": None, "failure_rate": 0.5, "minimum_calls": 4, **others}  # type: ignore[arg-type]
    )


def test_a_failure_rate_opens_it() -> None:
    """When the share is reached, with the minimum of calls."""
    breaker = Breaker(half(), Clock())
    succeed(breaker, 2)
    fail(breaker, 1)
    assert "closed" == breaker.state
    fail(breaker)
    assert "open" == breaker.state
    assert "2 of 4 calls failed, the last: 503 from a" == breaker.last_reason


def test_with_fewer_calls_than_the_minimum_there_is_no_rate() -> None:
    """Three failures of three do not open it."""
    breaker = Breaker(half(), Clock())
    fail(breaker, 3)
    assert "closed" == breaker.state


def test_a_success_may_complete_the_minimum() -> None:
    """Rates are looked at after every call, as in Resilience4j."""
    breaker = Breaker(half(), Clock())
    fail(breaker, 3)
    succeed(breaker)
    assert (BreakerState.OPEN, "3 of 4 calls failed") == (breaker.state, breaker.last_reason)


def test_a_window_smaller_than_the_minimum_needs_to_be_full() -> None:
    """Otherwise its rate would never be looked at."""
    breaker = Breaker(half(window_calls=3, minimum_calls=10), Clock())
    fail(breaker, 2)
    assert "closed" == breaker.state
    fail(breaker)
    assert "open" == breaker.state


def test_slow_calls_open_it() -> None:
    """Successes and failures that took longer than the limit count alike."""
    policy = BreakerPolicy(slow_call_rate=0.75, slow_call_seconds=5.0, minimum_calls=4)
    breaker = Breaker(policy, Clock())
    succeed(breaker, 1, seconds=5.0)
    succeed(breaker, 2, seconds=5.1)
    fail(breaker, 1, seconds=5.1)
    assert "open" == breaker.state
    assert "3 of 4 calls were slow, the last: 503 from a" == breaker.last_reason


def test_ignored_calls_are_in_no_window() -> None:
    """They neither complete the minimum nor thin the rate."""
    breaker = Breaker(half(), Clock())
    fail(breaker, 3)
    for _ in range(9):
        acquired(breaker).ignore()
    assert "closed" == breaker.state


def test_old_calls_leave_the_time_window() -> None:
    """Failures of a minute ago do not add to those of now."""
    clock = Clock()
    breaker = Breaker(half(window_seconds=60.0), clock)
    fail(breaker, 3)
    clock.now += 60
    fail(breaker, 3)
    assert "closed" == breaker.state
    fail(breaker)
    assert "open" == breaker.state


def test_a_closed_one_begins_with_an_empty_window() -> None:
    """What opened it does not open it again."""
    clock = Clock()
    breaker = Breaker(half(), clock)
    fail(breaker, 4)
    clock.now += 30
    succeed(breaker, 3)
    fail(breaker, 3)
    assert "closed" == breaker.state


@given(CALLS, st.integers(1, 8))
def test_a_count_window_holds_the_last_calls(
    calls: list[tuple[int, bool, bool]], size: int
) -> None:
    """However many came before."""
    window, last = CountWindow(size), deque[tuple[bool, bool]](maxlen=size)
    for _, failed, slow in calls:
        window.record(0.0, failed=failed, slow=slow)
        last.append((failed, slow))
    expected = Tally(len(last), sum(f for f, _ in last), sum(s for _, s in last))
    assert expected == window.tally(0.0)


@given(CALLS, st.integers(0, 200))
def test_a_time_window_holds_the_last_seconds(
    calls: list[tuple[int, bool, bool]], later: int
) -> None:
    """Of 100 seconds in buckets of 10: those of this bucket and of the nine before."""
    window, now, all_of_them = TimeWindow(100.0), 0, []
    for pause, failed, slow in calls:
        now += pause
        window.record(float(now), failed=failed, slow=slow)
        all_of_them.append((now, failed, slow))
    now += later
    young = [each for each in all_of_them if each[0] // 10 > now // 10 - 10]
    expected = Tally(len(young), sum(each[1] for each in young), sum(each[2] for each in young))
    assert expected == window.tally(float(now))


def test_a_time_window_has_bounded_memory() -> None:
    """Ten buckets hold any number of calls."""
    window = TimeWindow(60.0)
    for number in range(10_000):
        window.record(number / 7, failed=False, slow=False)
    assert BUCKETS == len(window._buckets)


@given(st.integers(1, 100), st.integers(1, 100))
def test_a_share_is_reached_exactly(count: int, calls: int) -> None:
    """A rate of 0.07 is reached by 7 of 100, whatever the rounding of their product."""
    rate = min(count / calls, 1.0)
    policy = RatePolicy(failure_rate=rate, minimum_calls=1)
    assert "" != policy.why_too_much(Tally(calls, min(count, calls), 0))
    assert "" == policy.why_too_much(Tally(calls, min(count, calls) - 1, 0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("consecutive_failures", 0),
        ("failure_rate", 0.0),
        ("failure_rate", 1.01),
        ("slow_call_rate", math.nan),
        ("slow_call_seconds", -1.0),
        ("window_calls", 0),
        ("window_seconds", 0.0),
        ("window_seconds", math.inf),
        ("minimum_calls", 0),
        ("open_seconds", 0.0),
        ("open_seconds", 301.0),
        ("open_backoff", 0.9),
        ("open_backoff", math.inf),
        ("max_open_seconds", math.inf),
        ("half_open_permits", 0),
        ("half_open_successes", 0),
        ("half_open_wait_seconds", math.inf),
    ],
)
def test_a_policy_refuses_what_cannot_work(name: str, value: float) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=name.removeprefix("half_open_").split("_")[-1]):
        BreakerPolicy(**{name: value})  # type: ignore[arg-type]
