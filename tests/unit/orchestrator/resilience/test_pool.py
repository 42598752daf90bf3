"""Leasing an agent's instances."""

import pytest

from orchestrator.config import Agent, Settings
from orchestrator.config import Instance as Address
from orchestrator.errors import AgentUnreachable
from orchestrator.resilience.balancer import Instance, LeastLatency, RoundRobin
from orchestrator.resilience.pool import Pool, Pools


class Clock:
    """A clock that the test turns; it tells the seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def pool(*urls: str, clock: Clock | None = None) -> Pool:
    """A pool of these instances, in turn."""
    return Pool("reader", [Instance(url) for url in urls], RoundRobin(), clock or Clock())


def call(leased: Pool, clock: Clock, seconds: float) -> None:
    """A call that takes so long."""
    with leased.lease("/x"):
        clock.now += seconds


def test_a_path_is_joined_to_the_chosen_instance() -> None:
    """Each lease takes the strategy's next instance."""
    leased = pool("http://a:1/prefix", "http://b:1")
    urls = []
    for _ in range(2):
        with leased.lease("/ingest?x=1") as (_, url):
            urls.append(url)
    assert ["http://a:1/prefix/ingest?x=1", "http://b:1/ingest?x=1"] == urls


def test_a_whole_url_chooses_its_instance_itself() -> None:
    """The strategy is not asked, and the instance that stands there counts the call."""
    leased = pool("http://a:1", "http://b:1")
    with leased.lease("http://b:1/ingest") as (instance, url):
        assert "http://b:1/ingest" == url
        assert [0, 1] == [each.active for each in leased.instances]
        assert leased.instances[1] is instance


def test_a_whole_url_elsewhere_is_called_all_the_same() -> None:
    """An address that is no instance of the agent needs none."""
    with pool("http://a:1").lease("http://z:1/x") as (instance, url):
        assert ("http://z:1", "http://z:1/x") == (instance.url, url)


def test_a_whole_url_elsewhere_leaves_nothing_behind() -> None:
    """Calls of other addresses do not pile up in memory."""
    leased = pool("http://a:1")
    for number in range(100):
        with leased.lease(f"http://z{number}:1/x"):
            pass
    assert len(leased._measured_at) <= len(leased.instances)


def test_an_agent_without_instances_is_unreachable() -> None:
    """The error is one that a later attempt may not meet."""
    with pytest.raises(AgentUnreachable, match="reader has no instances"), pool().lease("/x"):
        pass


def test_calls_in_flight_are_counted() -> None:
    """A lease counts until it ends."""
    leased = pool("http://a:1")
    with leased.lease("/x") as (instance, _), leased.lease("/x"):
        assert 2 == instance.active
    assert 0 == instance.active


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_lease_ends_with_an_error_too(error: type[BaseException]) -> None:
    """No error leaves a call counted."""
    leased = pool("http://a:1")
    with pytest.raises(error), leased.lease("/x"):
        raise error
    assert 0 == leased.instances[0].active


def test_the_first_call_sets_the_latency() -> None:
    """There is nothing to average it with."""
    clock = Clock()
    leased = pool("http://a:1", clock=clock)
    call(leased, clock, 0.5)
    assert 0.5 == leased.instances[0].latency


def test_a_slower_call_counts_at_once() -> None:
    """A peak is taken over whole."""
    clock = Clock()
    leased = pool("http://a:1", clock=clock)
    call(leased, clock, 0.5)
    call(leased, clock, 3.0)
    assert 3.0 == leased.instances[0].latency


def test_a_faster_call_counts_by_the_time_that_passed() -> None:
    """After the half-life of ten seconds old and new weigh the same."""
    clock = Clock()
    leased = pool("http://a:1", clock=clock)
    call(leased, clock, 4.0)
    clock.now += 8.0
    call(leased, clock, 2.0)
    assert pytest.approx(3.0) == leased.instances[0].latency


def test_failing_fast_makes_no_instance_attractive() -> None:
    """A refused connection is no proof of speed."""
    clock = Clock()
    leased = pool("http://a:1", clock=clock)
    call(leased, clock, 1.0)
    clock.now += 100.0
    with pytest.raises(AgentUnreachable), leased.lease("/x"):
        raise AgentUnreachable("refused")
    assert 1.0 == leased.instances[0].latency


def test_pools_of_a_configuration() -> None:
    """Each agent has its own, with the configured strategy and weights."""
    agents = {
        name: Agent(instances=(Address(url=f"http://{name}:1", weight=3),)) for name in ("a", "b")
    }
    settings = Settings.model_validate(
        {"agents": agents, "load_balancing": {"strategy": "latency"}}, strict=False
    )
    pools = Pools.of(settings)
    leased = pools.of_agent("a")
    assert ("a", [("http://a:1", 3)]) == (
        leased.agent,
        [(each.url, each.weight) for each in leased.instances],
    )
    assert isinstance(leased._strategy, LeastLatency)
    assert pools.of_agent("b")._strategy is not leased._strategy
    assert pools.of_agent("a") is leased


def test_an_unknown_agent_has_an_empty_pool() -> None:
    """A worker with an older configuration reports it as unreachable."""
    with (
        pytest.raises(AgentUnreachable, match="late has no instances in this process"),
        Pools({}).of_agent("late").lease("/x"),
    ):
        pass
