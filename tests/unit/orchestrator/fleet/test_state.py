"""What the fleet makes of configurations, reports and health checks."""

import pytest

from orchestrator.fleet.records import AgentSpec, FleetConfig, HealthCheckSpec, HealthState
from orchestrator.fleet.recovery import recovered
from orchestrator.fleet.state import EVENTS_KEPT, FleetState
from orchestrator.resilience.breaker_policy import BreakerState
from tests.unit.orchestrator.fleet.stage import (
    NOW,
    A,
    B,
    C,
    change,
    config,
    fleet,
    happened,
    health,
    instance,
    later,
    order,
    report,
    urls,
)


def test_a_configuration_makes_the_fleet() -> None:
    """Every agent with its instances, of unknown health."""
    state = fleet(A, B, writer=[C])
    assert ([A, B], [C]) == (urls(state), urls(state, "writer"))
    assert HealthState.UNKNOWN is instance(state).health
    assert ["reader", "writer"] == [each.agent for each in state.events]


def test_the_present_configuration_changes_nothing() -> None:
    """However often a process sends it."""
    state = fleet()
    assert state is state.configure(config(A, B), later(9))


def test_an_empty_configuration_is_one_too() -> None:
    """A fleet that has it is not as one that never had any."""
    assert FleetState().configure(FleetConfig(), NOW).version > 0


def test_instances_come_and_go_with_the_configuration() -> None:
    """What stays keeps what is known of it, with its new weight."""
    state = fleet(A, B).drain(order(A), later(1))
    state = state.configure(config(A, C, weight=3), later(2))
    assert [A, C] == urls(state)
    assert (True, 3) == (instance(state).draining, instance(state).weight)
    assert [
        ("drained", A),
        ("instance_removed", B),
        ("instance_added", C),
        ("weight_changed", A),
    ] == happened(state)


def test_agents_come_and_go_with_the_configuration() -> None:
    """Each with an event."""
    state = fleet(A, writer=[B]).configure(config(A, others={"editor": [C]}), later(1))
    assert {"reader", "editor"} == set(state.agents)
    assert [("agent_removed", "writer"), ("agent_added", "editor")] == [
        (each.what, each.agent) for each in state.events[-2:]
    ]


def test_a_new_way_to_check_reaches_the_agent() -> None:
    """Even if nothing else is new."""
    check = HealthCheckSpec(path="/live")
    spec = config(A).agents["reader"].model_copy(update={"health_check": check})
    state = fleet(A).configure(FleetConfig(agents={"reader": spec}), later(1))
    assert check == state.agents["reader"].health_check
    assert check == state.health_watch().agents["reader"].check


def test_an_instance_added_at_run_time_stays_when_the_configuration_changes() -> None:
    """Until the configuration has it as its own."""
    state = fleet(A).add_instance(change(C), later(1))
    state = state.configure(config(A, B), later(2))
    assert ([A, B, C], True) == (urls(state), instance(state, C).added)
    state = state.configure(config(A, C), later(3))
    assert ([A, C], False) == (urls(state), instance(state, C).added)


def test_a_removed_instance_stays_away_as_long_as_it_is_configured() -> None:
    """Once it was not, it comes back with the configuration."""
    state = fleet(A, B).remove_instance(change(B), later(1))
    state = state.configure(config(A, B, C), later(2))
    assert ([A, C], (B,)) == (urls(state), state.agents["reader"].removed)
    state = state.configure(config(A), later(3)).configure(config(A, B), later(4))
    assert ([A, B], ()) == (urls(state), state.agents["reader"].removed)


def test_a_breaker_that_opened_is_recorded() -> None:
    """When, until when, why and by whom; the process's own clock does not matter."""
    opened = report(BreakerState.OPEN, age_seconds=2, remaining_seconds=28, reason="it failed")
    state = fleet().report(opened, later(10))
    record = instance(state).breaker
    assert record is not None
    assert (BreakerState.OPEN, later(8), later(38), "it failed", "worker@1", state.version) == (
        record.state,
        record.changed_at,
        record.until,
        record.reason,
        record.process,
        record.version,
    )
    assert [("breaker_opened", A)] == happened(state)


def test_the_later_report_holds() -> None:
    """One that comes late says nothing any more."""
    state = fleet().report(report(BreakerState.OPEN, remaining_seconds=30), later(10))
    stale = report(BreakerState.CLOSED, age_seconds=5)
    assert state is state.report(stale, later(11))
    closed = state.report(report(BreakerState.CLOSED), later(12))
    assert BreakerState.CLOSED is (instance(closed).breaker or pytest.fail("none")).state


def test_reports_of_one_message_count_in_their_order() -> None:
    """A breaker may open and close between two messages."""
    opened = report(BreakerState.OPEN, age_seconds=2).reports
    closed = report(BreakerState.CLOSED, age_seconds=1).reports
    both = report(BreakerState.OPEN).model_copy(update={"reports": (*opened, *closed)})
    assert [("breaker_opened", A), ("breaker_closed", A)] == happened(fleet().report(both, NOW))


@pytest.mark.parametrize(
    "told",
    [
        report(BreakerState.CLOSED),
        report(BreakerState.HALF_OPEN),
        report(BreakerState.FORCED_OPEN),
        report(BreakerState.OPEN, url="http://nowhere"),
    ],
    ids=["closed", "half-open", "forced", "unknown"],
)
def test_what_is_no_news_changes_nothing(told: object) -> None:
    """A breaker that was not open closes; states of no concern; an instance that is not ours."""
    state = fleet()
    assert state is state.report(told, later(1))  # type: ignore[arg-type]


def test_a_report_from_before_a_reset_is_void() -> None:
    """The operator knew better; what is found out later counts again."""
    state = fleet().reset(order(), later(10))
    assert state is state.report(report(BreakerState.OPEN, age_seconds=3), later(12))
    later_on = state.report(report(BreakerState.OPEN, age_seconds=1), later(12))
    assert instance(later_on).breaker is not None


def test_health_is_recorded_with_why() -> None:
    """And since when; the same again is no news."""
    state = fleet().check(health(HealthState.UNHEALTHY, reason="answered 500"), later(3))
    found = instance(state)
    assert (HealthState.UNHEALTHY, "answered 500", later(3)) == (
        found.health,
        found.health_reason,
        found.health_since,
    )
    assert state is state.check(health(HealthState.UNHEALTHY, reason="refused"), later(4))
    assert state is state.check(health(HealthState.HEALTHY, url="http://nowhere"), later(5))


def test_whom_to_check() -> None:
    """Every instance, with what is known of it; no agent without any."""
    state = fleet(A, B, empty=[]).check(health(HealthState.HEALTHY), later(1))
    watch = state.health_watch()
    assert {"reader": {A: HealthState.HEALTHY, B: HealthState.UNKNOWN}} == {
        name: each.instances for name, each in watch.agents.items()
    }


def test_versions_of_a_fleet_that_is_started_anew_are_later() -> None:
    """So no process takes its news for what it knows."""
    old = fleet()
    for second in range(50):
        old = old.reset(order(), later(second))
    assert fleet().version < old.version
    assert old.version < FleetState().configure(config(A), later(60)).version


def test_only_the_latest_events_are_kept() -> None:
    """What a fleet carries along does not grow."""
    state = fleet()
    for number in range(EVENTS_KEPT):
        state = state.reset(order(A, reason=f"{number}"), later(number))
    assert (EVENTS_KEPT, f"{EVENTS_KEPT - 1}") == (len(state.events), state.events[-1].reason)
    assert state.events[0].what == "reset"


def test_long_reasons_are_cut() -> None:
    """Agents say what they like."""
    state = fleet().report(report(BreakerState.OPEN, reason="x" * 10_000), later(1))
    state = state.check(health(HealthState.UNHEALTHY, reason="x" * 10_000), later(2))
    assert [500, 500] == [len(each.reason) for each in state.events[-2:]]


def test_who_knows_the_version_gets_no_agents() -> None:
    """Another version brings them all."""
    state = fleet()
    assert state.snapshot(state.version).agents is None
    assert state.agents == state.snapshot(state.version - 1).agents == state.snapshot().agents


def test_a_breaker_that_closes_is_a_recovery() -> None:
    """That one opens is none."""
    before = fleet()
    opened = before.report(report(BreakerState.OPEN), later(1))
    closed = opened.report(report(BreakerState.CLOSED), later(2))
    assert ((), ("reader",)) == (recovered(before, opened), recovered(opened, closed))


def test_an_agent_that_answers_again_has_recovered() -> None:
    """Its first check is no recovery, nor is a second instance that comes back."""
    fresh = fleet()
    first = fresh.check(health(HealthState.HEALTHY), later(1))
    down = fresh.check(health(HealthState.UNHEALTHY), later(1))
    back = down.check(health(HealthState.HEALTHY), later(2))
    half = first.check(health(HealthState.UNHEALTHY, B), later(2))
    whole = half.check(health(HealthState.HEALTHY, B), later(3))
    assert [(), (), ("reader",), ()] == [
        recovered(fresh, first),
        recovered(fresh, down),
        recovered(down, back),
        recovered(half, whole),
    ]


def test_the_state_survives_its_journey() -> None:
    """As JSON, from one run of the workflow to the next."""
    state = fleet().trip(order(A), later(1)).report(report(BreakerState.OPEN, B), later(2))
    state = state.add_instance(change(C, weight=2), later(3))
    assert state == FleetState.model_validate_json(state.model_dump_json(exclude_unset=True))


def test_an_agent_without_instances_is_no_trouble() -> None:
    """Orders about all of them are about none."""
    state = FleetState().configure(FleetConfig(agents={"reader": AgentSpec()}), NOW)
    assert state is state.drain(order(), later(1))


def test_an_agent_that_is_configured_again_is_as_operators_left_it() -> None:
    """Processes of an older configuration may start in between."""
    state = fleet(A, B, writer=[C]).drain(order(), later(1))
    without = state.configure(FleetConfig(agents={"writer": AgentSpec()}), later(2))
    back = without.configure(config(A, B), later(3))
    assert ("reader" in without.agents, True) == (False, instance(back).draining)
