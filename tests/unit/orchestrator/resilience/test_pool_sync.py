"""A pool that adopts the fleet's word: instances, orders, what other processes found out."""

import pytest

from orchestrator.fleet.records import FleetSnapshot
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.resilience.pool import Pools
from tests.unit.orchestrator.resilience.pools import (
    NOW,
    OPEN_SECONDS,
    UNHEALTHY,
    A,
    B,
    C,
    Clock,
    fail,
    found,
    in_flight,
    instance,
    leased,
    member,
    order,
    pool,
    record,
    turns,
)

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED


def test_instances_come_and_go() -> None:
    """Those that stay keep what is known of them."""
    chosen = pool(A, B)
    fail(chosen, f"{B}/x")
    kept = member(chosen, B)
    chosen.sync(record(instance(B), instance(C)), NOW)
    assert [B, C] == [each.url for each in chosen.instances]
    assert kept is member(chosen, B)
    assert "cc" == turns(chosen, 2)


def test_a_new_instance_is_ramped_up() -> None:
    """It is cold."""
    chosen = pool(A)
    chosen.sync(record(instance(A), instance(B)), NOW)
    assert (False, True) == (member(chosen, A).is_ramped, member(chosen, B).is_ramped)


def test_a_call_outlives_the_removal_of_its_instance() -> None:
    """Its end does not fall on another of that address."""
    chosen = pool(A, B)
    with chosen.lease(f"{A}/x"):
        chosen.sync(record(instance(B)), NOW)
        chosen.sync(record(instance(A), instance(B)), NOW)
        assert [0, 0] == in_flight(chosen)
    assert [0, 0] == in_flight(chosen)


def test_an_instance_that_was_removed_is_forgotten() -> None:
    """One that is added under its address starts anew."""
    chosen = pool(A, B)
    fail(chosen, f"{A}/x")
    chosen.sync(record(instance(B)), NOW)
    chosen.sync(record(instance(A), instance(B)), NOW)
    assert CLOSED is member(chosen, A).breaker.state


def test_weight_drain_and_health_are_the_fleets() -> None:
    """With each look at it."""
    chosen = pool(A)
    chosen.sync(record(instance(A, weight=5, draining=True, **UNHEALTHY)), NOW)
    seen = member(chosen, A)
    assert (5, True, False) == (seen.weight, seen.draining, seen.healthy)
    chosen.sync(record(instance(A)), NOW)
    assert (1, False, True) == (seen.weight, seen.draining, seen.healthy)


def test_a_limit_of_connections_holds_until_it_is_taken_back() -> None:
    """Then the configuration's holds again."""
    chosen = pool(A)
    chosen.sync(record(instance(A), max_connections=3), NOW)
    assert (3, 3) == (chosen.max_connections, chosen.capacity())
    chosen.sync(record(instance(A)), NOW)
    assert (10, 10) == (chosen.max_connections, chosen.capacity())


@pytest.mark.parametrize("state", [FORCED_OPEN, DISABLED])
def test_an_operators_order_is_obeyed(state: BreakerState) -> None:
    """Whatever the breaker itself thinks."""
    chosen = pool(A)
    chosen.sync(record(instance(A, order=order(state))), NOW)
    assert state is member(chosen, A).breaker.state
    assert "an operator" == member(chosen, A).breaker.last_reason


def test_a_reset_is_obeyed_once() -> None:
    """Else nothing could ever open the breaker again."""
    chosen = pool(A)
    reset = record(instance(A, order=order(CLOSED)))
    fail(chosen)
    chosen.sync(reset, NOW)
    assert CLOSED is chosen.breaker_state
    fail(chosen)
    chosen.sync(reset, NOW)
    assert OPEN is chosen.breaker_state
    chosen.sync(record(instance(A, order=order(CLOSED, version=2))), NOW)
    assert CLOSED is chosen.breaker_state


def test_an_order_ends_an_order() -> None:
    """Forced open, then reset: closed, and ramped up."""
    chosen = pool(A)
    chosen.sync(record(instance(A, order=order(FORCED_OPEN))), NOW)
    chosen.sync(record(instance(A, order=order(CLOSED, version=2))), NOW)
    assert (CLOSED, True, 2) == (
        chosen.breaker_state,
        member(chosen, A).is_ramped,
        chosen.capacity(),
    )


def test_an_order_that_the_fleet_does_not_know_any_more_has_ended() -> None:
    """As when the fleet was ended and started anew."""
    chosen = pool(A)
    chosen.sync(record(instance(A, order=order(FORCED_OPEN))), NOW)
    chosen.sync(record(instance(A)), NOW)
    assert CLOSED is chosen.breaker_state
    fail(chosen)
    chosen.sync(record(instance(A)), NOW)
    assert OPEN is chosen.breaker_state


def test_what_another_process_found_out_opens_the_breaker_here() -> None:
    """For what is left of its time."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    chosen.sync(record(instance(A, breaker=found(OPEN, age=10, left=20))), NOW)
    assert (OPEN, 20.0) == (chosen.breaker_state, member(chosen, A).open_seconds)
    clock.now += 20
    assert HALF_OPEN is chosen.breaker_state


def test_what_is_over_opens_nothing() -> None:
    """A process that starts late finds old records."""
    chosen = pool(A)
    chosen.sync(record(instance(A, breaker=found(OPEN, age=100, left=-5))), NOW)
    assert CLOSED is chosen.breaker_state


def test_a_breaker_that_closed_elsewhere_closes_here() -> None:
    """And is ramped up here too: each process is part of the herd."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    fail(chosen)
    clock.now += 10
    chosen.sync(record(instance(A, breaker=found(CLOSED, age=1))), NOW)
    assert (CLOSED, 2) == (chosen.breaker_state, chosen.capacity())


def test_what_this_process_found_out_later_holds() -> None:
    """Another's older word does not close its breaker."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    clock.now += 10
    fail(chosen)
    chosen.sync(record(instance(A, breaker=found(CLOSED, age=5))), NOW)
    assert OPEN is chosen.breaker_state


def test_a_record_later_than_a_reset_is_not_lost() -> None:
    """A process that starts meets the old order and the new record together."""
    chosen = pool(A)
    seen = instance(A, order=order(CLOSED, 1, age=600), breaker=found(OPEN, 2, age=10, left=20))
    chosen.sync(record(seen), NOW)
    assert (OPEN, 20.0) == (chosen.breaker_state, member(chosen, A).open_seconds)


def test_a_record_earlier_than_a_reset_is_passed_over() -> None:
    """It was what the operator put right."""
    chosen = pool(A)
    seen = instance(A, order=order(CLOSED, 2, age=5), breaker=found(OPEN, 1, age=10, left=20))
    chosen.sync(record(seen), NOW)
    assert CLOSED is chosen.breaker_state


def test_a_record_does_not_end_an_order() -> None:
    """Only an operator does."""
    chosen = pool(A)
    forced = instance(A, order=order(FORCED_OPEN, 1, age=10), breaker=found(CLOSED, 2))
    chosen.sync(record(forced), NOW)
    assert FORCED_OPEN is member(chosen, A).breaker.state


def test_what_is_adopted_is_not_told_to_the_fleet_again() -> None:
    """Only what this process found out by itself is its own."""
    told: list[bool] = []
    chosen = pool(A)
    chosen.on_transition = lambda _agent, _url, transition: told.append(transition.own)
    chosen.sync(record(instance(A, breaker=found(OPEN, left=20))), NOW)
    chosen.sync(record(instance(A, order=order(CLOSED))), NOW)
    fail(chosen)
    assert [False, False, True] == told


def test_an_agent_whose_every_instance_is_gone_is_unreachable() -> None:
    """As one that never had any."""
    chosen = pool(A)
    chosen.sync(record(), NOW)
    assert ((), None) == (chosen.instances, chosen.unavailability())


def test_a_snapshot_is_for_the_agents_that_this_process_knows() -> None:
    """Another's configuration may have more, or fewer."""
    one, two = pool(A), pool(B)
    pools = Pools({"one": one, "two": two})
    agents = {"one": record(instance(A, draining=True)), "three": record(instance(C))}
    pools.sync(FleetSnapshot(version=7, agents=agents), NOW)
    assert [True, False] == [each.instances[0].draining for each in (one, two)]
    assert ("one", "two") == pools.agents


def test_a_snapshot_without_agents_changes_nothing() -> None:
    """It says that this process is up to date."""
    chosen = pool(A)
    Pools({"reader": chosen}).sync(FleetSnapshot(version=7), NOW)
    assert A == leased(chosen).instance


def test_the_time_that_a_breaker_stays_open_goes_by_this_processes_clock() -> None:
    """Only spans of time are taken over, so a wall clock that jumps later does nothing."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    seen = record(instance(A, breaker=found(OPEN, age=0, left=OPEN_SECONDS)))
    chosen.sync(seen, NOW)
    clock.now += 10
    chosen.sync(seen, NOW)
    assert 20.0 == member(chosen, A).open_seconds


def test_a_fleet_that_knows_of_no_order_ends_the_one_obeyed() -> None:
    """It was ended by somebody, and started anew."""
    chosen = pool(A)
    chosen.sync(record(instance(A, order=order(BreakerState.FORCED_OPEN))), NOW)
    held = chosen.breaker_state
    chosen.sync(record(instance(A)), NOW)
    assert (BreakerState.OPEN, BreakerState.CLOSED) == (held, chosen.breaker_state)
