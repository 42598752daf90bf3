"""The headers that tell of rate limits."""

import pytest

from api import rate_limits
from orchestrator.errors import QuotaExceeded
from orchestrator.models import LimitMode, RateLimit
from orchestrator.resilience.limiter import Decision
from orchestrator.security.quotas import Allowance, Grant


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
    } == rate_limits.accepted("reader", Decision(limit(100), 17.5, allowed=True))


@pytest.mark.parametrize(
    ("rate", "policy"), [(1.5, "q=1;w=40"), (0.5, "q=1;w=120"), (90.9, "q=90;w=60")]
)
def test_a_broken_rate_is_written_in_whole_numbers(rate: float, policy: str) -> None:
    """Never more than the limit lets through."""
    headers = rate_limits.refused("reader", limit(rate), 1)
    assert f'"reader";{policy}' == headers["RateLimit-Policy"]


def test_a_tenants_quotas_are_told_together() -> None:
    """Each in the lists; the single fields are of the one that leaves least."""
    grant = Grant(
        "acme",
        Decision(limit(100), 17.5, allowed=True),
        (Allowance("running", 10, 4), Allowance("daily", 900, 30, 59.1)),
    )
    assert {
        "RateLimit-Limit": "10",
        "RateLimit-Remaining": "4",
        "RateLimit-Policy": '"tenant-acme";q=100;w=60, '
        '"tenant-acme-running";q=10;qu="concurrent-requests", "tenant-acme-daily";q=900;w=86400',
        "RateLimit": '"tenant-acme";r=17;t=2, "tenant-acme-running";r=4, '
        '"tenant-acme-daily";r=30;t=60',
    } == rate_limits.granted(grant)


@pytest.mark.parametrize("grant", [None, Grant("acme")])
def test_a_tenant_without_quotas_is_told_of_none(grant: Grant | None) -> None:
    """There is nothing to tell."""
    assert {} == rate_limits.granted(grant)


@pytest.mark.parametrize(
    ("policy", "told"),
    [("running", 'q=10;qu="concurrent-requests"'), ("daily", "q=10;w=86400")],
)
def test_a_refusal_by_a_quota_says_which_it_was(policy: str, told: str) -> None:
    """With all of the fields."""
    error = QuotaExceeded("acme", policy, "10 tasks", 4.2, most=10)
    assert {
        "Retry-After": "5",
        "RateLimit-Limit": "10",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "5",
        "RateLimit-Policy": f'"tenant-acme-{policy}";{told}',
        "RateLimit": f'"tenant-acme-{policy}";r=0;t=5',
    } == rate_limits.over_quota(error)
