"""The token bucket by a clock that the test moves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.models import LimitMode, RateLimit
from orchestrator.resilience.limiter import TokenBucket


class Clock:
    """Stands still until it is moved; seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def limit(rate: float = 60, burst: int = 3) -> RateLimit:
    """One a second, three at once."""
    return RateLimit(rate=rate, burst=burst, mode=LimitMode.REJECT)


@pytest.fixture
def clock() -> Clock:
    """The bucket's clock."""
    return Clock()


@pytest.fixture
def bucket(clock: Clock) -> TokenBucket:
    """A full bucket."""
    return TokenBucket(limit(), clock)


def drain(bucket: TokenBucket) -> int:
    """Take until there is none; how many there were."""
    taken = 0
    while bucket.try_take().allowed:
        taken += 1
    return taken


def test_a_burst_and_then_no_more(bucket: TokenBucket) -> None:
    """As many at once as the burst says, counted down."""
    assert [2, 1, 0] == [bucket.try_take().remaining for _ in range(3)]

    refused = bucket.try_take()

    assert (False, 0, 1.0, 3.0) == (
        refused.allowed,
        refused.remaining,
        refused.retry_after,
        refused.full_after,
    )


def test_tokens_come_back_at_the_rate(bucket: TokenBucket, clock: Clock) -> None:
    """One a second; a refusal in between costs nothing."""
    drain(bucket)
    clock.now += 0.75
    early = bucket.try_take()
    clock.now += 0.25
    assert (False, 0.25, True) == (early.allowed, early.retry_after, bucket.try_take().allowed)


def test_a_long_pause_fills_no_more_than_the_burst(bucket: TokenBucket, clock: Clock) -> None:
    """An hour later there are three."""
    drain(bucket)
    clock.now += 3600
    assert 3 == drain(bucket)


def test_looking_takes_nothing(bucket: TokenBucket) -> None:
    """The same answer however often, and all tokens are still there."""
    assert [(True, 3)] * 5 == [
        (seen.allowed, seen.remaining) for seen in (bucket.look() for _ in range(5))
    ]
    assert 3 == drain(bucket)


def test_a_token_that_is_given_back_can_be_taken(bucket: TokenBucket) -> None:
    """Once for each that was."""
    drain(bucket)
    bucket.give_back()
    assert 1 == drain(bucket)


def test_giving_back_overfills_nothing(bucket: TokenBucket) -> None:
    """A full bucket stays full."""
    bucket.give_back()
    assert 3 == drain(bucket)


def test_a_clock_that_goes_back_does_no_harm(bucket: TokenBucket, clock: Clock) -> None:
    """Nothing is added, and from there on time counts again."""
    drain(bucket)
    clock.now -= 500
    assert not bucket.try_take().allowed
    clock.now += 1
    assert 1 == drain(bucket)


@pytest.mark.parametrize(("burst", "left"), [(2, 2), (10, 3)])
def test_another_burst_clamps_and_gives_nothing_away(
    bucket: TokenBucket, burst: int, left: int
) -> None:
    """A smaller one counts at once, a larger one fills by the rate."""
    bucket.change(limit(burst=burst))
    assert left == drain(bucket)


def test_another_rate_counts_from_now(bucket: TokenBucket, clock: Clock) -> None:
    """The time before went by the old one."""
    drain(bucket)
    clock.now += 1
    bucket.change(limit(rate=600))
    clock.now += 0.1
    assert 2 == drain(bucket)


steps = st.lists(
    st.tuples(
        st.floats(min_value=-5, max_value=5, allow_nan=False),
        st.sampled_from(["take", "give back", "look"]),
    ),
    max_size=80,
)


@given(
    rate=st.floats(min_value=0.1, max_value=6000),
    burst=st.integers(min_value=1, max_value=20),
    steps=steps,
)
def test_no_window_holds_more_than_burst_and_rate(
    rate: float, burst: int, steps: list[tuple[float, str]]
) -> None:
    """Whatever the clock does: what was taken and kept is within burst + rate * time forward."""
    clock = Clock()
    bucket = TokenBucket(limit(rate, burst), clock)
    forward, kept, given_back = 0.0, 0, 0
    taken: list[tuple[float, int]] = [(0.0, 0)]
    for step, act in steps:
        clock.now += step
        forward += max(0.0, step)
        if act == "take":
            kept += bucket.try_take().allowed
        elif act == "give back" and given_back < kept:
            bucket.give_back()
            given_back += 1
        taken.append((forward, kept - given_back))

    for position, (since, before) in enumerate(taken):
        for until, after in taken[position:]:
            most = burst + rate / 60 * (until - since)
            assert after - before <= math.floor(most + 1e-6)


@given(
    rate=st.floats(min_value=0.1, max_value=6000),
    burst=st.integers(min_value=1, max_value=20),
    steps=steps,
)
def test_what_a_decision_says_is_true(
    rate: float, burst: int, steps: list[tuple[float, str]]
) -> None:
    """Tokens stay within 0 and the burst, and after ``retry_after`` there is one."""
    clock = Clock()
    bucket = TokenBucket(limit(rate, burst), clock)
    for step, act in steps:
        clock.now += step
        if act == "give back":
            bucket.give_back()
        decision = bucket.try_take() if act == "take" else bucket.look()
        assert 0 <= decision.remaining <= burst
        assert (decision.remaining < 1) == (decision.retry_after > 0)
    clock.now += bucket.look().retry_after + 1e-6
    assert bucket.try_take().allowed
