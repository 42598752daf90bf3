"""How many calls may be in flight, when that may change, and who is told."""

import pytest

from tests.unit.orchestrator.resilience.pools import (
    NOW,
    OPEN_SECONDS,
    A,
    B,
    Clock,
    fail,
    instance,
    leased,
    member,
    pool,
    record,
)


def test_the_capacity_is_the_connections_however_many_instances() -> None:
    """Also where there are none, as for rules that name whole URLs."""
    assert [10, 10, 10] == [pool(*urls).capacity() for urls in ((), (A,), (A, B))]


def test_an_agent_that_is_not_available_has_no_capacity() -> None:
    """Its backlog stays in the engine's queue."""
    chosen = pool(A)
    fail(chosen)
    assert 0 == chosen.capacity()


def test_half_open_the_capacity_is_the_permits() -> None:
    """Of all instances on trial together."""
    clock = Clock()
    chosen = pool(A, B, clock=clock)
    fail(chosen, times=2)
    clock.now += OPEN_SECONDS
    assert 4 == chosen.capacity()


def test_one_instance_that_works_is_enough_for_all_connections() -> None:
    """The others' breakers take nothing away."""
    chosen = pool(A, B)
    fail(chosen)
    assert 10 == chosen.capacity()


def test_fewer_connections_than_permits_hold() -> None:
    """The agent's own number is never exceeded."""
    clock = Clock()
    chosen = pool(A, clock=clock, max_connections=1)
    fail(chosen)
    clock.now += OPEN_SECONDS
    assert 1 == chosen.capacity()


@pytest.mark.parametrize(("opens_in", "expected"), [(0.2, 0.2), (5.0, 1.0)])
def test_the_next_look_is_when_a_breaker_may_be_tried(opens_in: float, expected: float) -> None:
    """And never more than a second away."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    fail(chosen)
    clock.now += OPEN_SECONDS - opens_in
    assert pytest.approx(expected) == chosen.next_look()


def test_a_ramp_is_looked_at_in_small_steps() -> None:
    """Until it is complete."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    member(chosen, A).come_back()
    assert 0.25 == chosen.next_look()
    clock.now += 10
    assert (10, 1.0) == (chosen.capacity(), chosen.next_look())


def test_a_change_is_told_at_once() -> None:
    """The end of a call, a breaker's change, the fleet's word."""
    heard: list[int] = []
    chosen = pool(A)
    chosen.watch(lambda: heard.append(chosen.capacity()))
    leased(chosen)
    assert [10] == heard
    heard.clear()
    fail(chosen)
    assert 0 in heard
    heard.clear()
    chosen.sync(record(instance(A), max_connections=3), NOW)
    assert 1 <= len(heard)
