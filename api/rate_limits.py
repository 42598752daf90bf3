"""What answers say of rate limits: Retry-After, and the RateLimit headers, older and newer."""

import math

from orchestrator.models import RateLimit
from orchestrator.resilience.limiter import SECONDS_A_MINUTE, Decision


def retry_after(seconds: float) -> str:
    """Whole seconds, at least 1: nobody is asked to come back too early."""
    return str(max(1, math.ceil(seconds)))


def refused(agent: str, limit: RateLimit, seconds: float) -> dict[str, str]:
    """The headers of a refusal, where the next token comes after so many seconds."""
    return {
        "Retry-After": retry_after(seconds),
        **_headers(agent, limit, remaining=0, reset=max(1, math.ceil(seconds))),
    }


def accepted(agent: str, decision: Decision) -> dict[str, str]:
    """The headers of an answer for which a token was taken; reset is when all are back."""
    reset = math.ceil(decision.full_after)
    return _headers(agent, decision.limit, remaining=decision.remaining, reset=reset)


def quota(tenant: str, decision: Decision) -> dict[str, str]:
    """The headers of an answer that a tenant's own limit allowed, or refused."""
    if decision.allowed:
        return accepted(f"tenant-{tenant}", decision)
    return refused(f"tenant-{tenant}", decision.limit, decision.retry_after)


def both(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    """The headers of two limits: the lists of both, and the fields of the one with less left."""
    if not first or not second:
        return first | second
    remaining = "RateLimit-Remaining"
    tighter = min(first, second, key=lambda each: int(each[remaining]))
    lists = ("RateLimit-Policy", "RateLimit")
    return tighter | {name: f"{first[name]}, {second[name]}" for name in lists}


def _headers(agent: str, limit: RateLimit, remaining: int, reset: int) -> dict[str, str]:
    """The three fields that many services send, and the two of the IETF's draft.

    Those name the policy after the agent. A rate below one a minute is written as one in a longer
    window.
    """
    quota = max(1, int(limit.rate))
    window = math.ceil(quota / limit.rate * SECONDS_A_MINUTE)
    return {
        "RateLimit-Limit": str(quota),
        "RateLimit-Remaining": str(remaining),
        "RateLimit-Reset": str(reset),
        "RateLimit-Policy": f'"{agent}";q={quota};w={window}',
        "RateLimit": f'"{agent}";r={remaining};t={reset}',
    }
