"""The strategies that choose an instance."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import LoadBalancing
from orchestrator.resilience.balancer import (
    STRATEGIES,
    Instance,
    LeastConnections,
    LeastLatency,
    RoundRobin,
    SmoothWeighted,
    Strategy,
)


def instances(*weights: int) -> list[Instance]:
    """Instances a, b, c ... of these weights."""
    return [Instance(url, weight) for url, weight in zip("abcdefgh", weights, strict=False)]


def choices(strategy: Strategy, among: Sequence[Instance], times: int) -> str:
    """The instances that are chosen, one letter each."""
    return "".join(strategy.select(among).url for _ in range(times))


def test_round_robin_takes_turns() -> None:
    """Each instance in its turn, from the first."""
    assert "abcabca" == choices(RoundRobin(), instances(1, 1, 1), 7)


@given(st.integers(1, 8), st.integers(0, 50))
def test_round_robin_is_fair(count: int, rounds: int) -> None:
    """After whole rounds every instance has been chosen equally often."""
    among = instances(*[1] * count)
    chosen = Counter(choices(RoundRobin(), among, count * rounds))
    assert all(chosen[each.url] == rounds for each in among)


def test_round_robin_survives_a_change_of_instances() -> None:
    """Fewer instances than before are no error."""
    strategy = RoundRobin()
    choices(strategy, instances(1, 1, 1), 5)
    assert {"a", "b"} == set(choices(strategy, instances(1, 1), 4))


def test_smooth_weighted_spreads_the_heavy_one() -> None:
    """Weights 5, 1, 1 give nginx's documented order, again and again."""
    assert "aabacaa" * 2 == choices(SmoothWeighted(), instances(5, 1, 1), 14)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_smooth_weighted_is_exact_over_a_round(weights: list[int]) -> None:
    """In as many choices as the weights' sum each instance is chosen by its weight."""
    among = instances(*weights)
    chosen = Counter(choices(SmoothWeighted(), among, sum(weights)))
    assert {each.url: each.weight for each in among} == dict(chosen)


def test_round_robin_spares_an_instance_that_is_ramped_up() -> None:
    """At half its share it has half a turn, spread evenly."""
    among = instances(9, 1, 1)
    among[2].share = 0.5
    assert {"a": 4, "b": 4, "c": 2} == Counter(choices(RoundRobin(), among, 10))


def test_a_turn_that_was_missed_is_not_made_up_for() -> None:
    """An instance that was left out for long does not get a row of calls when it is back."""
    strategy, among = RoundRobin(), instances(1, 1, 1)
    choices(strategy, among, 3)
    choices(strategy, among[:2], 300)
    assert {"a": 3, "b": 3, "c": 3} == Counter(choices(strategy, among, 9))


def test_weights_count_by_the_share_of_a_ramp() -> None:
    """Five at a fifth weigh as much as one."""
    among = instances(5, 1)
    among[0].share = 0.2
    assert {"a": 5, "b": 5} == Counter(choices(SmoothWeighted(), among, 10))


def test_least_connections_counts_the_share_of_a_ramp() -> None:
    """One call of an instance at a quarter is as much as four of another."""
    among = instances(1, 1)
    among[0].active, among[1].active, among[1].share = 3, 1, 0.25
    assert "a" == choices(LeastConnections(), among, 1)


def test_latency_counts_the_share_of_a_ramp() -> None:
    """The faster one is spared while it is ramped up."""
    among = instances(1, 1)
    among[0].latency, among[1].latency, among[1].share = 0.2, 0.1, 0.25
    assert "a" == choices(LeastLatency(), among, 1)


def test_least_connections_takes_the_idle_one() -> None:
    """Calls in flight count, divided by weight."""
    among = instances(1, 1, 4)
    among[0].active, among[1].active, among[2].active = 2, 1, 3
    assert "c" == choices(LeastConnections(), among, 1)


def test_least_connections_takes_turns_among_equals() -> None:
    """Idle instances share the calls."""
    assert {"a": 4, "b": 4} == Counter(choices(LeastConnections(), instances(1, 1), 8))


def test_latency_compares_two_drawn_by_chance() -> None:
    """The better of the two is chosen, even if a third is better still."""
    among = instances(1, 1, 1)
    among[0].latency, among[1].latency, among[2].latency = 0.3, 0.2, 0.1
    drawn: list[int] = []

    def first_two(population: list[Instance], k: int) -> list[Instance]:
        drawn.append(k)
        return population[:k]

    assert "b" == choices(LeastLatency(first_two), among, 1)
    assert [2] == drawn


@pytest.mark.parametrize(
    ("latencies", "active", "weights", "expected"),
    [
        ((0.1, 0.2), (0, 0), (1, 1), "a"),
        ((0.1, 0.2), (2, 0), (1, 1), "b"),
        ((0.1, 0.2), (0, 0), (1, 4), "b"),
    ],
)
def test_latency_counts_load_and_weight(
    latencies: tuple[float, float],
    active: tuple[int, int],
    weights: tuple[int, int],
    expected: str,
) -> None:
    """The cost is latency times calls in flight, divided by weight."""
    among = instances(*weights)
    for each, latency, calls in zip(among, latencies, active, strict=True):
        each.latency, each.active = latency, calls
    assert expected == choices(LeastLatency(), among, 1)


def test_latency_with_one_instance() -> None:
    """A single instance is chosen without a second to compare."""
    assert "aa" == choices(LeastLatency(), instances(1), 2)


def test_latency_does_not_flood_an_instance_that_it_knows_nothing_of() -> None:
    """Among instances without a measurement the idle one is chosen."""
    among = instances(1, 1)
    among[0].active = 5
    assert "b" == choices(LeastLatency(lambda population, k: population[:k]), among, 1)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_chooses_an_instance_that_was_offered(name: str) -> None:
    """Each works from its first choice on, and can be configured by its name."""
    among = instances(1, 2, 3)
    assert name == LoadBalancing.model_validate({"strategy": name}).strategy
    assert set(choices(STRATEGIES[name](), among, 20)) <= {"a", "b", "c"}
