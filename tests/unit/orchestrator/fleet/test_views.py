"""The fleet as people see it."""

import pytest

from orchestrator.config import Agent, AgentRateLimit, Instance, Settings
from orchestrator.fleet.records import FleetConfig, HealthState, LimitOrder
from orchestrator.fleet.state import FleetState
from orchestrator.fleet.views import (
    AgentView,
    agent_breaker,
    agent_events,
    agent_view,
    breaker_view,
    is_healthy,
    queue_view,
    summary,
)
from orchestrator.models import LimitMode
from orchestrator.resilience.breaker_policy import BreakerState
from tests.unit.orchestrator.fleet.stage import (
    NOW,
    A,
    B,
    C,
    change,
    fleet,
    health,
    instance,
    later,
    order,
    report,
)

SETTINGS = Settings(
    agents={
        "reader": Agent(
            instances=(Instance(url=A), Instance(url=B)),
            capabilities=("text",),
            rate_limit=AgentRateLimit(rate=60),
            max_connections=50,
        )
    }
)
CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
FORCED, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED


def opened(state: FleetState, url: str = A, at: float = 1) -> FleetState:
    """Its breaker opens for 30 seconds."""
    return state.report(report(OPEN, url, remaining_seconds=30, reason="it failed"), later(at))


def view(state: FleetState) -> AgentView:
    """The agent, with nothing waiting."""
    record = state.agents["reader"]
    return agent_view("reader", record, SETTINGS, queue_view({}, has_worker=True), NOW)


def test_nothing_has_happened_to_a_new_breaker() -> None:
    """It is closed, since nobody knows when."""
    shown = breaker_view(instance(fleet()), NOW)
    assert (CLOSED, None, None, "") == (shown.state, shown.since, shown.until, shown.reason)


def test_an_open_breaker_shows_until_when_and_why() -> None:
    """When that has passed it shows as half-open: it may be tried."""
    record = instance(opened(fleet()))
    shown, after = breaker_view(record, later(30)), breaker_view(record, later(31))
    assert (OPEN, later(1), later(31), "it failed") == (
        shown.state,
        shown.since,
        shown.until,
        shown.reason,
    )
    assert (HALF_OPEN, later(31), None) == (after.state, after.since, after.until)


def test_an_operators_order_shows_over_what_was_found_out() -> None:
    """Until a reset, and what is found out after that shows again."""
    tripped = opened(fleet().trip(order(A, reason="it burns"), later(1)), at=2)
    shown = breaker_view(instance(tripped), later(3))
    assert (FORCED, later(1), "it burns") == (shown.state, shown.since, shown.reason)
    reset = tripped.reset(order(A), later(4))
    assert CLOSED is breaker_view(instance(reset), later(5)).state
    assert OPEN is breaker_view(instance(opened(reset, at=6)), later(7)).state


def test_the_breaker_of_an_agent_is_the_most_open_of_its_instances() -> None:
    """Closed if any is; what an operator holds shows when all are held."""
    state = fleet(A, B)
    one = opened(state)
    both = opened(one, B, at=20)
    states = [
        agent_breaker(each.agents["reader"], now)
        for each, now in (
            (state, later(2)),
            (one, later(2)),
            (both, later(21)),
            (both, later(40)),
            (both.trip(order(), later(22)), later(23)),
            (one.trip(order(B), later(22)), later(23)),
            (both.disable_breaker(order(A), later(22)), later(23)),
            (both.disable_breaker(order(), later(22)), later(23)),
        )
    ]
    assert [CLOSED, CLOSED, OPEN, HALF_OPEN, FORCED, OPEN, CLOSED, DISABLED] == states


def test_an_agent_without_instances_has_a_closed_breaker() -> None:
    """There is nothing that could be open."""
    state = FleetState().configure(FleetConfig(agents={"reader": {}}), NOW)
    assert CLOSED is agent_breaker(state.agents["reader"], NOW)


def test_an_agent_is_healthy_by_one_instance_that_takes_calls() -> None:
    """One that was never checked is not known to be healthy."""
    state = fleet(A, B)
    checked = state.check(health(HealthState.HEALTHY, A), later(1))
    drained = checked.drain(order(A), later(2))
    assert [False, True, False] == [
        is_healthy(each.agents["reader"]) for each in (state, checked, drained)
    ]


def test_limits_show_what_holds_and_what_was_set() -> None:
    """The configuration's where nobody set any."""
    state = fleet().set_limit(
        LimitOrder(agent="reader", mode=LimitMode.QUEUE, max_connections=7), later(1)
    )
    before, after = view(fleet()).limits, view(state).limits
    assert (60.0, 20, LimitMode.REJECT, 50, ()) == (
        before.rate,
        before.burst,
        before.mode,
        before.max_connections,
        before.set_at_run_time,
    )
    assert (60.0, 20, LimitMode.QUEUE, 7, ("mode", "max_connections")) == (
        after.rate,
        after.burst,
        after.mode,
        after.max_connections,
        after.set_at_run_time,
    )


def test_a_view_shows_the_whole_agent() -> None:
    """With what was added and what was taken away."""
    state = fleet(A, B).add_instance(change(C), later(1)).remove_instance(change(B), later(2))
    shown = view(state)
    assert ([A, C], (B,), ("text",)) == (
        [each.url for each in shown.instances],
        shown.removed,
        shown.capabilities,
    )
    assert [False, True] == [each.added for each in shown.instances]


def test_a_queue_shows_the_most_urgent_first() -> None:
    """By our priorities."""
    shown = queue_view({1: 7, 5: 2}, has_worker=None)
    assert ([("priority_5", 2), ("priority_1", 7)], None) == (
        list(shown.depth.items()),
        shown.has_worker,
    )


def test_events_of_one_agent_are_the_latest() -> None:
    """At most 20."""
    state = fleet(A, other=[B])
    for number in range(30):
        state = state.reset(order(A, reason=f"{number}"), later(number))
    found = agent_events(state.events[::-1], "reader")
    assert (20, "29") == (len(found), found[0].reason)
    assert ["agent_added"] == [each.what for each in agent_events(state.events, "other")]


@pytest.mark.parametrize(
    ("state", "row"),
    [
        (fleet(A), "| reader | http://a | unknown | closed |  |"),
        (opened(fleet(A)), "| reader | http://a | unknown | open until 10:30:31 UTC |  |"),
        (fleet(A).trip(order(), later(1)), "| reader | http://a | unknown | forced_open |  |"),
        (fleet(A).drain(order(), later(1)), "| reader | http://a | unknown | closed | draining |"),
    ],
)
def test_the_web_ui_shows_a_row_for_each_instance(state: FleetState, row: str) -> None:
    """In Markdown."""
    assert row in summary(state).splitlines()


def test_a_fleet_without_agents_says_so() -> None:
    """An empty table would tell nothing."""
    assert "No agents yet" in summary(FleetState())
