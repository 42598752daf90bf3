"""Pools and breakers that go by another configuration while calls are in flight."""

from datetime import UTC, datetime

from orchestrator.config import Agent, CircuitBreaker, ErrorRecovery, Instance, Settings
from orchestrator.fleet.records import AgentRecord, FleetSnapshot, InstanceRecord, LimitRecord
from orchestrator.resilience.balancer import LeastLatency
from orchestrator.resilience.breaker import Breaker
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState, Transition
from orchestrator.resilience.pool import Pools
from tests.unit.orchestrator.resilience.pools import Clock, fail, leased

URL = "http://h:1"
AGENT = Agent(instances=(Instance(url=URL),))


def settings(threshold: int = 5, **fields: object) -> Settings:
    """One agent, whose breaker opens after so many failures."""
    recovery = ErrorRecovery(circuit_breaker_threshold=threshold, circuit_breaker=CircuitBreaker())
    return Settings(agents={"reader": AGENT}, error_recovery=recovery, **fields)  # type: ignore[arg-type]


def limited(calls: int | None) -> FleetSnapshot:
    """The fleet's word, with a limit that operators set."""
    instances = (InstanceRecord(url=URL),)
    record = AgentRecord(instances=instances, limits=LimitRecord(max_connections=calls))
    return FleetSnapshot(version=1, agents={"reader": record})


def test_a_breaker_keeps_what_it_knows() -> None:
    """Failures that were counted count by the new policy."""
    pools = Pools.of(settings())
    pool = pools.of_agent("reader")
    fail(pool)
    pools.configure(settings(threshold=2))
    states = [pool.breaker_state]
    fail(pool)
    assert [BreakerState.CLOSED, BreakerState.OPEN] == [*states, pool.breaker_state]


def test_an_open_breaker_stays_open() -> None:
    """As long as it would have; later ones are as the new policy says."""
    clock = Clock()
    breaker = Breaker(BreakerPolicy(consecutive_failures=1, open_seconds=30), clock)
    for expected in (30.0, 5.0):
        permit = breaker.try_acquire()
        assert permit is not None
        permit.failure(0)
        assert clock.now + expected == breaker.retry_at
        breaker.configure(BreakerPolicy(consecutive_failures=1, open_seconds=5))
        assert clock.now + expected == breaker.retry_at
        breaker.reset("by hand")


def test_limits_are_those_of_the_new_configuration() -> None:
    """Unless operators have set one, which stays over it."""
    pools = Pools.of(settings())
    pool = pools.of_agent("reader")
    few = Settings(agents={"reader": AGENT.model_copy(update={"max_connections": 3})})
    pools.configure(few)
    assert 3 == pool.max_connections
    pools.sync(limited(7), datetime.now(UTC))
    pools.configure(settings())
    assert 7 == pool.max_connections
    pools.sync(limited(None), datetime.now(UTC))
    assert 100 == pool.max_connections


def test_a_new_agent_has_a_pool() -> None:
    """Whose breakers are heard as those of the others are."""
    pools = Pools.of(Settings())
    heard: list[tuple[str, str]] = []

    def hear(agent: str, instance: str, _: Transition) -> None:
        heard.append((agent, instance))

    pools.on_transition = hear
    pools.configure(settings(threshold=1))
    assert ("reader",) == pools.agents
    fail(pools.of_agent("reader"))
    assert [("reader", URL)] == heard


def test_an_agent_that_is_gone_keeps_its_pool() -> None:
    """For calls that were handed over before; it has room for no more."""
    pools = Pools.of(settings())
    pools.configure(Settings())
    pool = pools.of_agent("reader")
    found = [(pools.agents, pool.capacity())]
    assert URL == leased(pool).instance
    pools.configure(settings())
    assert [((), 0), (("reader",), 100)] == [*found, (pools.agents, pool.capacity())]


def test_the_strategy_is_the_new_one() -> None:
    """From the next call on."""
    pools = Pools.of(settings())
    pools.configure(Settings(agents={"reader": AGENT}, load_balancing={"strategy": "latency"}))  # type: ignore[arg-type]
    assert isinstance(pools.of_agent("reader")._strategy, LeastLatency)
