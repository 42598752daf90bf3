"""The keys of balancing, breakers, limits and dead letters: what they allow, and what they mean."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config import Settings
from orchestrator.models import LimitMode, RateLimit
from orchestrator.resilience.breaker_policy import BreakerPolicy
from orchestrator.resilience.member import PoolPolicy

AGENT = "reader"


def settings(agent: dict[str, Any] | None = None, **blocks: Any) -> Settings:
    """Settings with one agent."""
    return Settings.model_validate({"agents": {AGENT: agent or {}}, **blocks}, strict=False)


@pytest.mark.parametrize(
    ("block", "key", "value"),
    [
        ("load_balancing", "panic_threshold", -0.1),
        ("load_balancing", "panic_threshold", 1.1),
        ("load_balancing", "slow_start", -1),
        ("load_balancing", "slow_start", 3601),
        ("load_balancing", "strategy", "random"),
        ("priority_queue", "tenant_weights", {"school": 0}),
        ("priority_queue", "tenant_weights", {"school": 1001}),
        ("priority_queue", "tenant_weights", {"a b": 1}),
        ("rate_limiting", "mode", "drop"),
        ("rate_limiting", "redis", "http://h"),
        ("error_recovery", "when_unavailable", "fail"),
        ("error_recovery", "circuit_breaker", {"failure_rate": 0}),
        ("error_recovery", "circuit_breaker", {"slow_call_rate": 1.5}),
        ("error_recovery", "circuit_breaker", {"window_calls": 0}),
        ("error_recovery", "circuit_breaker", {"open_backoff": 0.5}),
        ("error_recovery", "circuit_breaker", {"half_open_permits": 0}),
        ("error_recovery", "circuit_breaker", {"max_open": 0}),
        ("dead_letters", "expire_after", 0),
        ("dead_letters", "redrive_rate", 0),
        ("dead_letters", "redrive_rate", 1001),
    ],
)
def test_values_out_of_bounds(block: str, key: str, value: object) -> None:
    """Shares are 0 to 1, rates above 0, names those that there are."""
    with pytest.raises(ValidationError):
        settings(**{block: {key: value}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rate_limit", {"rate": 0}),
        ("rate_limit", {"burst": 0}),
        ("health_check", {"path": "health"}),
        ("health_check", {"expected": [99]}),
        ("health_check", {"healthy_threshold": 0}),
        ("health_check", {"unhealthy_threshold": 101}),
        ("max_connections", 0),
    ],
)
def test_an_agents_values_out_of_bounds(key: str, value: object) -> None:
    """As those of all agents."""
    with pytest.raises(ValidationError):
        settings({key: value})


@pytest.mark.parametrize("url", ["redis://h:6379/0", "rediss://:secret@h"])
def test_the_address_of_redis_is_a_secret(url: str) -> None:
    """It may hold a password, which no error and no log shows."""
    redis = settings(rate_limiting={"redis": url}).rate_limiting.redis
    assert redis is not None
    assert (url, False) == (redis.get_secret_value(), url in repr(redis))


def test_without_any_limit_there_is_none() -> None:
    """A file that says nothing of limits has none."""
    assert settings().rate_limit(AGENT) is None


@pytest.mark.parametrize(
    ("block", "agent", "expected"),
    [
        ({}, {}, (100.0, 20, LimitMode.REJECT)),
        ({"default_rate": 60, "burst_size": 5, "mode": "queue"}, {}, (60.0, 5, LimitMode.QUEUE)),
        ({"default_rate": 60}, {"rate": 6}, (6.0, 20, LimitMode.REJECT)),
        ({"mode": "queue"}, {"mode": "reject", "burst": 1}, (100.0, 1, LimitMode.REJECT)),
        (None, {"rate": 6}, (6.0, 20, LimitMode.REJECT)),
        (None, {"mode": "queue"}, (100.0, 20, LimitMode.QUEUE)),
    ],
)
def test_an_agents_limit(
    block: dict[str, Any] | None, agent: dict[str, Any], expected: tuple[float, int, LimitMode]
) -> None:
    """Its own values first, then the block's, then the defaults."""
    blocks = {} if block is None else {"rate_limiting": block}
    rate, burst, mode = expected
    found = settings({"rate_limit": agent}, **blocks).rate_limit(AGENT)
    assert RateLimit(rate=rate, burst=burst, mode=mode) == found


def test_limits_can_be_switched_off() -> None:
    """All of them, an agent's own too."""
    off = settings({"rate_limit": {"rate": 6}}, rate_limiting={"enabled": False})
    assert off.rate_limit(AGENT) is None


def test_an_unknown_agent_has_the_limit_of_all() -> None:
    """Its configuration may be newer elsewhere."""
    found = settings(rate_limiting={"default_rate": 60}).rate_limit("stranger")
    assert found is not None
    assert 60.0 == found.rate


def test_the_policy_of_an_agent_by_default() -> None:
    """The documented defaults."""
    expected = PoolPolicy(
        breaker=BreakerPolicy(
            consecutive_failures=5,
            open_seconds=30.0,
            open_backoff=2.0,
            max_open_seconds=300.0,
            half_open_permits=3,
            half_open_wait_seconds=600.0,
            slow_call_seconds=60.0,
            window_calls=100,
            minimum_calls=10,
        ),
        max_connections=100,
        panic_threshold=0.5,
        slow_start_seconds=10.0,
    )
    assert expected == PoolPolicy.of(settings(), AGENT)


def test_the_policy_of_an_agent_by_its_keys() -> None:
    """Each reaches the part that it is for."""
    policy = PoolPolicy.of(
        settings(
            {"max_connections": 7},
            load_balancing={"panic_threshold": 0.2, "slow_start": 0},
            error_recovery={
                "circuit_breaker_threshold": 2,
                "circuit_breaker_timeout": 5,
                "circuit_breaker": {
                    "failure_rate": 0.5,
                    "slow_call_rate": 0.9,
                    "slow_call_seconds": 3,
                    "window_seconds": 60,
                    "minimum_calls": 4,
                    "open_backoff": 3,
                    "max_open": 50,
                    "half_open_permits": 1,
                },
            },
        ),
        AGENT,
    )
    breaker = policy.breaker
    assert (7, 0.2, 0.0) == (
        policy.max_connections,
        policy.panic_threshold,
        policy.slow_start_seconds,
    )
    assert (2, 5.0, 3.0, 50.0, 1) == (
        breaker.consecutive_failures,
        breaker.open_seconds,
        breaker.open_backoff,
        breaker.max_open_seconds,
        breaker.half_open_permits,
    )
    assert (0.5, 0.9, 3.0, 60.0, 4) == (
        breaker.failure_rate,
        breaker.slow_call_rate,
        breaker.slow_call_seconds,
        breaker.window_seconds,
        breaker.minimum_calls,
    )


def test_a_breaker_never_stays_open_for_less_than_its_timeout() -> None:
    """A timeout over the cap is the cap."""
    recovery = {"circuit_breaker_timeout": 400}
    policy = PoolPolicy.of(settings(error_recovery=recovery), AGENT)
    assert 400.0 == policy.breaker.max_open_seconds


def test_a_trial_is_not_lost_while_it_may_be_under_way() -> None:
    """The longest rule's timeout and a minute is the least that is waited for."""
    rule = {"pattern": "p", "target_agent": AGENT, "endpoint": "/x", "timeout": 1000}
    policy = PoolPolicy.of(settings(routing_rules=[rule]), AGENT)
    assert 1060.0 == policy.breaker.half_open_wait_seconds
