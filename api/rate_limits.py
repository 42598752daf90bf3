"""What answers say of rate limits: Retry-After, and the RateLimit headers, older and newer."""

import math
from functools import reduce

from orchestrator.errors import QuotaExceeded
from orchestrator.models import RateLimit
from orchestrator.resilience.limiter import SECONDS_A_MINUTE, Decision
from orchestrator.security.quotas import Allowance, Grant

_REMAINING = "RateLimit-Remaining"
_LISTS = ("RateLimit-Policy", "RateLimit")
_PARAMETERS = {"running": 'qu="concurrent-requests"', "daily": f"w={24 * 3600}"}
"""What a tenant's count is of, as the IETF's draft writes it."""


def retry_after(seconds: float) -> str:
    """Whole seconds, at least 1: nobody is asked to come back too early."""
    return str(max(1, math.ceil(seconds)))


def refused(agent: str, limit: RateLimit, seconds: float) -> dict[str, str]:
    """The headers of a refusal, where the next token comes after so many seconds."""
    return {
        "Retry-After": retry_after(seconds),
        **_of_bucket(agent, limit, remaining=0, reset=max(1, math.ceil(seconds))),
    }


def accepted(agent: str, decision: Decision) -> dict[str, str]:
    """The headers of an answer for which a token was taken; reset is when all are back."""
    reset = math.ceil(decision.full_after)
    return _of_bucket(agent, decision.limit, remaining=decision.remaining, reset=reset)


def granted(grant: Grant | None) -> dict[str, str]:
    """The headers of an answer that a tenant's own limits allowed, where it has such."""
    if grant is None:
        return {}
    found = [_of_count(grant.tenant, each) for each in grant.allowances]
    if grant.decision is not None:
        found.insert(0, accepted(_name(grant.tenant), grant.decision))
    return reduce(both, found, {})


def over_quota(error: QuotaExceeded) -> dict[str, str]:
    """The headers of a refusal by a tenant's own limit."""
    wait = {"Retry-After": retry_after(error.retry_after)}
    if error.decision is not None:
        return refused(_name(error.tenant), error.decision.limit, error.retry_after)
    allowance = Allowance(error.policy, error.most, 0, error.retry_after)
    return wait | _of_count(error.tenant, allowance)


def both(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    """The headers of two limits: the lists of both, and the fields of the one with less left."""
    if not first or not second:
        return first | second
    tighter = min(first, second, key=lambda each: int(each[_REMAINING]))
    return tighter | {name: f"{first[name]}, {second[name]}" for name in _LISTS}


def _name(tenant: str, *count: str) -> str:
    """What a tenant's limit is called."""
    return "-".join(("tenant", tenant, *count))


def _of_bucket(name: str, limit: RateLimit, remaining: int, reset: int) -> dict[str, str]:
    """A rate below one a minute is written as one in a longer window."""
    quota = max(1, int(limit.rate))
    window = math.ceil(quota / limit.rate * SECONDS_A_MINUTE)
    return _headers(name, quota, f"w={window}", remaining, reset)


def _of_count(tenant: str, allowance: Allowance) -> dict[str, str]:
    reset = None if allowance.reset is None else max(1, math.ceil(allowance.reset))
    name, parameter = _name(tenant, allowance.policy), _PARAMETERS[allowance.policy]
    return _headers(name, allowance.most, parameter, allowance.remaining, reset)


def _headers(
    name: str, quota: int, parameter: str, remaining: int, reset: int | None
) -> dict[str, str]:
    """The three fields that many services send, and the two of the IETF's draft.

    Those name the policy after the agent, or the tenant.
    """
    seconds = {} if reset is None else {"RateLimit-Reset": str(reset)}
    return {
        "RateLimit-Limit": str(quota),
        _REMAINING: str(remaining),
        **seconds,
        "RateLimit-Policy": f'"{name}";q={quota};{parameter}',
        "RateLimit": f'"{name}";r={remaining}' + ("" if reset is None else f";t={reset}"),
    }
