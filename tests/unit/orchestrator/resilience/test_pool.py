"""Leasing an agent's instances."""

import pytest

from orchestrator.call_errors import AgentUnreachable
from orchestrator.config import Agent, Settings
from orchestrator.config import Instance as Address
from orchestrator.errors import AgentUnavailable
from orchestrator.models import BlockedBy
from orchestrator.resilience.balancer import LeastLatency
from orchestrator.resilience.breaker_policy import BreakerState, Transition
from orchestrator.resilience.pool import Pool, Pools
from tests.unit.orchestrator.resilience.pools import (
    A,
    B,
    Clock,
    fail,
    in_flight,
    leased,
    member,
    pool,
)

ELSEWHERE = "http://z:1/x"


def call(chosen: Pool, clock: Clock, seconds: float) -> None:
    """A call that takes so long."""
    with chosen.lease("/x"):
        clock.now += seconds


def test_a_path_is_joined_to_the_chosen_instance() -> None:
    """Each lease takes the strategy's next instance."""
    chosen = pool("http://a:1/prefix", B)
    urls = [leased(chosen, "/ingest?x=1").url for _ in range(2)]
    assert ["http://a:1/prefix/ingest?x=1", "http://b:1/ingest?x=1"] == urls


def test_a_whole_url_chooses_its_instance_itself() -> None:
    """The strategy is not asked, and the instance that stands there counts the call."""
    chosen = pool(A, B)
    with chosen.lease("http://b:1/ingest") as lease:
        assert ("http://b:1/ingest", B, False) == (lease.url, lease.instance, lease.trial)
        assert [0, 1] == in_flight(chosen)


def test_a_whole_url_elsewhere_is_called_all_the_same() -> None:
    """An address that is no instance of the agent needs none."""
    lease = leased(pool(A), ELSEWHERE)
    assert ("http://z:1", ELSEWHERE) == (lease.instance, lease.url)


def test_a_whole_url_elsewhere_has_a_breaker_too() -> None:
    """Which is nobody else's, and known again by its origin."""
    chosen = pool(A)
    fail(chosen, ELSEWHERE)
    with pytest.raises(AgentUnavailable) as caught:
        leased(chosen, "http://z:1/another")
    assert (BlockedBy.BREAKER, 30.0) == (caught.value.blocked_by, caught.value.retry_after)
    assert A == leased(chosen).instance


def test_the_breaker_of_a_named_instance_is_told_apart() -> None:
    """Its time is what the call waits for, though others could be called."""
    chosen = pool(A, B)
    fail(chosen, "http://b:1/x")
    with pytest.raises(AgentUnavailable) as caught:
        leased(chosen, "http://b:1/x")
    assert (BlockedBy.BREAKER, 30.0) == (caught.value.blocked_by, caught.value.retry_after)
    assert chosen.unavailability() is None


def test_a_drained_instance_is_not_called_by_its_url_either() -> None:
    """The operator's word holds."""
    chosen = pool(A, B)
    member(chosen, B).draining = True
    with pytest.raises(AgentUnavailable) as caught:
        leased(chosen, "http://b:1/x")
    assert BlockedBy.PAUSED is caught.value.blocked_by


def test_whole_urls_elsewhere_do_not_pile_up() -> None:
    """Only the latest are remembered."""
    chosen = pool(A)
    for number in range(300):
        leased(chosen, f"http://z{number}:1/x")
    assert 100 == len(chosen._strangers)


def test_an_agent_without_instances_is_unreachable() -> None:
    """The error is one that a later attempt may not meet."""
    with pytest.raises(AgentUnreachable, match="reader has no instances"):
        leased(pool())


def test_calls_in_flight_are_counted() -> None:
    """A lease counts until it ends."""
    chosen = pool(A)
    with chosen.lease("/x"), chosen.lease("/x"):
        assert [2] == in_flight(chosen)
    assert [0] == in_flight(chosen)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_lease_ends_with_an_error_too(error: type[BaseException]) -> None:
    """No error leaves a call counted, and none of these is the instance's fault."""
    chosen = pool(A)
    with pytest.raises(error), chosen.lease("/x"):
        raise error
    assert ([0], BreakerState.CLOSED) == (in_flight(chosen), chosen.breaker_state)


def test_the_first_call_sets_the_latency() -> None:
    """There is nothing to average it with."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    call(chosen, clock, 0.5)
    assert 0.5 == chosen.instances[0].latency


def test_a_slower_call_counts_at_once() -> None:
    """A peak is taken over whole."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    call(chosen, clock, 0.5)
    call(chosen, clock, 3.0)
    assert 3.0 == chosen.instances[0].latency


def test_a_faster_call_counts_by_the_time_that_passed() -> None:
    """After the half-life of ten seconds old and new weigh the same."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    call(chosen, clock, 4.0)
    clock.now += 8.0
    call(chosen, clock, 2.0)
    assert pytest.approx(3.0) == chosen.instances[0].latency


def test_failing_fast_makes_no_instance_attractive() -> None:
    """A refused connection is no proof of speed."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    call(chosen, clock, 1.0)
    clock.now += 100.0
    fail(chosen)
    assert 1.0 == chosen.instances[0].latency


def test_pools_of_a_configuration() -> None:
    """Each agent has its own, with the configured strategy and weights."""
    agents = {
        name: Agent(instances=(Address(url=f"http://{name}:1", weight=3),)) for name in ("a", "b")
    }
    settings = Settings.model_validate(
        {"agents": agents, "load_balancing": {"strategy": "latency"}}, strict=False
    )
    pools = Pools.of(settings)
    chosen = pools.of_agent("a")
    assert ("a", [(A, 3)]) == (
        chosen.agent,
        [(each.url, each.weight) for each in chosen.instances],
    )
    assert isinstance(chosen._strategy, LeastLatency)
    assert pools.of_agent("b")._strategy is not chosen._strategy
    assert pools.of_agent("a") is chosen
    assert ("a", "b") == pools.agents


def test_an_unknown_agent_has_an_empty_pool() -> None:
    """A worker with an older configuration reports it as unreachable."""
    with pytest.raises(AgentUnreachable, match="late has no instances in this process"):
        leased(Pools({}).of_agent("late"))


def test_a_change_of_a_breaker_is_told_with_agent_and_instance() -> None:
    """Whoever tells the fleet needs no more."""
    heard: list[tuple[str, str, Transition]] = []
    chosen = pool(A, B)
    pools = Pools({"reader": chosen})
    pools.on_transition = lambda *told: heard.append(told)
    fail(chosen)
    [(agent, url, transition)] = heard
    assert ("reader", A, BreakerState.OPEN, True) == (
        agent,
        url,
        transition.after,
        transition.own,
    )
