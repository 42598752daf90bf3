"""The limit of each agent: the configuration's, and the operators' over it."""

import pytest

from orchestrator.config import Agent, AgentRateLimit, RateLimiting, Settings
from orchestrator.fleet.records import AgentRecord, FleetSnapshot, LimitRecord
from orchestrator.limits import RateLimits, effective_limit
from orchestrator.models import LimitMode, RateLimit

LIMITED = Settings(
    agents={"reader": Agent(rate_limit=AgentRateLimit(rate=100, burst=10)), "writer": Agent()}
)
FREE = Settings(agents={"reader": Agent()})
SWITCHED_OFF = Settings(
    agents={"reader": Agent(rate_limit=AgentRateLimit(rate=100))},
    rate_limiting=RateLimiting(enabled=False),
)


def rate_limit(rate: float, burst: int, mode: LimitMode = LimitMode.REJECT) -> RateLimit:
    """A limit; calls a minute."""
    return RateLimit(rate=rate, burst=burst, mode=mode)


@pytest.mark.parametrize(
    ("settings", "record", "expected"),
    [
        (LIMITED, LimitRecord(), rate_limit(100, 10)),
        (LIMITED, LimitRecord(rate=5), rate_limit(5, 10)),
        (LIMITED, LimitRecord(burst=3), rate_limit(100, 3)),
        (LIMITED, LimitRecord(mode=LimitMode.QUEUE), rate_limit(100, 10, LimitMode.QUEUE)),
        (FREE, LimitRecord(), None),
        (FREE, LimitRecord(max_connections=3), None),
        (FREE, LimitRecord(burst=3, mode=LimitMode.QUEUE), None),
        (FREE, LimitRecord(rate=5), rate_limit(5, 20)),
        (FREE, LimitRecord(rate=5, burst=2), rate_limit(5, 2)),
        (SWITCHED_OFF, LimitRecord(), None),
        (SWITCHED_OFF, LimitRecord(rate=5), rate_limit(5, 20)),
    ],
)
def test_operators_are_over_the_configuration(
    settings: Settings, record: LimitRecord, expected: RateLimit | None
) -> None:
    """What they did not name stays; only a rate makes a limit where there is none."""
    assert expected == effective_limit(settings, "reader", record)


def test_the_fleets_word_is_adopted() -> None:
    """Of the agents that it names and we know; a snapshot without news changes nothing."""
    limits = RateLimits(LIMITED)
    record = AgentRecord(limits=LimitRecord(rate=7, burst=1))
    limits.sync(FleetSnapshot(version=1, agents={"reader": record, "stranger": record}))
    limits.sync(FleetSnapshot(version=1))

    assert rate_limit(7, 1) == limits.of("reader")
    assert (None, None) == (limits.of("writer"), limits.of("stranger"))
    assert ("reader", "writer") == limits.agents

    limits.sync(FleetSnapshot(version=2, agents={"reader": AgentRecord()}))
    assert rate_limit(100, 10) == limits.of("reader")


def test_another_configuration_is_taken_over() -> None:
    """With new agents, without those that are gone, and under what operators set."""
    limits = RateLimits(LIMITED)
    limits.sync(
        FleetSnapshot(version=1, agents={"reader": AgentRecord(limits=LimitRecord(rate=7))})
    )
    other = Settings(
        agents={
            "reader": Agent(rate_limit=AgentRateLimit(rate=50, burst=5)),
            "newcomer": Agent(rate_limit=AgentRateLimit(rate=9, burst=9)),
        }
    )
    limits.configure(other)
    assert ("reader", "newcomer") == limits.agents
    assert [rate_limit(7, 5), rate_limit(9, 9), None] == [
        limits.of(each) for each in ("reader", "newcomer", "writer")
    ]
