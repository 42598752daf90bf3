"""The headers that tell of rate limits."""

import pytest

from api import rate_limits
from orchestrator.models import LimitMode, RateLimit
from orchestrator.resilience.limiter import Decision


def limit(rate: float) -> RateLimit:
    """Calls a minute, 20 at once."""
    return RateLimit(rate=rate, burst=20, mode=LimitMode.REJECT)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1"), (0.01, "1"), (1, "1"), (1.01, "2"), (30.5, "31")]
)
def test_nobody_is_asked_to_come_back_too_early(seconds: float, text: str) -> None:
    """Whole seconds, rounded up, at least 1."""
    assert text == rate_limits.retry_after(seconds)


def test_a_refusal_says_when_to_come_back() -> None:
    """Reset is then the same as Retry-After, as the draft has it."""
    assert {
        "Retry-After": "2",
        "RateLimit-Limit": "100",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "2",
        "RateLimit-Policy": '"reader";q=100;w=60',
        "RateLimit": '"reader";r=0;t=2',
    } == rate_limits.refused("reader", limit(100), 1.2)


def test_an_answer_says_what_is_left() -> None:
    """And when all of it is back."""
    assert {
        "RateLimit-Limit": "100",
        "RateLimit-Remaining": "17",
        "RateLimit-Reset": "2",
        "RateLimit-Policy": '"reader";q=100;w=60',
        "RateLimit": '"reader";r=17;t=2',
    } == rate_limits.accepted("reader", Decision.of(limit(100), 17.5, allowed=True))


@pytest.mark.parametrize(
    ("rate", "policy"), [(1.5, "q=1;w=40"), (0.5, "q=1;w=120"), (90.9, "q=90;w=60")]
)
def test_a_broken_rate_is_written_in_whole_numbers(rate: float, policy: str) -> None:
    """Never more than the limit lets through."""
    headers = rate_limits.refused("reader", limit(rate), 1)
    assert f'"reader";{policy}' == headers["RateLimit-Policy"]
