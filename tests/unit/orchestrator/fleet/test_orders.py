"""What the fleet makes of operators' orders."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from orchestrator.errors import OrderRefused
from orchestrator.fleet.records import BreakerOrder, InstanceChange, LimitOrder, LimitRecord
from orchestrator.fleet.state import MAX_INSTANCES, FleetState, unknown_agent
from orchestrator.models import LimitMode
from orchestrator.resilience.breaker_policy import BreakerState
from tests.unit.orchestrator.fleet.stage import (
    A,
    B,
    C,
    change,
    config,
    fleet,
    happened,
    instance,
    later,
    order,
    report,
    urls,
)


def limit(**fields: object) -> LimitOrder:
    """A limit for ``reader``."""
    return LimitOrder.model_validate({"agent": "reader", **fields})


def order_of(state: FleetState, url: str = A) -> BreakerOrder:
    """The order about an instance's breaker."""
    found = instance(state, url).order
    assert found is not None
    return found


def test_one_instance_is_drained_and_resumed() -> None:
    """The others are left alone; saying it twice says nothing new."""
    drained = fleet().drain(order(A, reason="new version", by="ann"), later(1))
    assert (True, False) == (instance(drained, A).draining, instance(drained, B).draining)
    event = drained.events[-1]
    assert ("drained", A, "new version", "ann") == (
        event.what,
        event.instance,
        event.reason,
        event.by,
    )
    assert drained is drained.drain(order(A), later(2))
    assert not instance(drained.resume(order(A), later(3)), A).draining


def test_without_an_instance_an_order_is_about_all() -> None:
    """With an event for each that it changed."""
    state = fleet().drain(order(B), later(1)).drain(order(), later(2))
    assert [("drained", B), ("drained", A)] == happened(state)


def test_the_url_may_end_with_a_slash() -> None:
    """As in the configuration."""
    assert instance(fleet().drain(order(f"{A}/"), later(1))).draining


def test_a_tripped_breaker_says_when_and_why() -> None:
    """Under the version of the change, so that each process obeys once."""
    state = fleet().trip(order(A, reason="it burns"), later(1))
    assert BreakerOrder(
        state=BreakerState.FORCED_OPEN, version=state.version, at=later(1), reason="it burns"
    ) == order_of(state)
    assert state is state.trip(order(A, reason="it burns"), later(2))
    assert "still" == order_of(state.trip(order(A, reason="still"), later(2))).reason


def test_a_breaker_can_be_disabled() -> None:
    """Also one that was tripped: the later order holds."""
    state = fleet().trip(order(), later(1)).disable_breaker(order(A), later(2))
    assert (BreakerState.DISABLED, BreakerState.FORCED_OPEN) == (
        order_of(state, A).state,
        order_of(state, B).state,
    )


def test_a_reset_forgets_what_was_found_out() -> None:
    """Saying it again resets again."""
    state = fleet().report(report(BreakerState.OPEN), later(1)).reset(order(A), later(2))
    assert (None, BreakerState.CLOSED) == (instance(state).breaker, order_of(state).state)
    assert order_of(state).version < order_of(state.reset(order(A), later(3))).version


def test_limits_add_up() -> None:
    """What is not named stays."""
    state = fleet().set_limit(limit(rate=50), later(1)).set_limit(limit(burst=5), later(2))
    assert LimitRecord(rate=50, burst=5) == state.agents["reader"].limits
    assert state is state.set_limit(limit(rate=50), later(3))


def test_clear_takes_all_back_first() -> None:
    """And then sets what is named beside it."""
    state = fleet().set_limit(limit(rate=50, mode="queue"), later(1))
    state = state.set_limit(limit(clear=True, max_connections=7, reason="calm"), later(2))
    assert LimitRecord(max_connections=7) == state.agents["reader"].limits
    assert "cleared, max_connections 7; calm" == state.events[-1].reason
    assert LimitRecord() == state.set_limit(limit(clear=True), later(3)).agents["reader"].limits


def test_a_mode_is_one_of_the_known() -> None:
    """As everywhere."""
    state = fleet().set_limit(limit(mode="queue"), later(1))
    assert LimitMode.QUEUE is state.agents["reader"].limits.mode


def test_an_instance_is_added_at_run_time() -> None:
    """With weight 1 unless another is named; its URL written as in the configuration."""
    state = fleet(A).add_instance(change(f"{B}/", reason="more"), later(1))
    state = state.add_instance(change(C, weight=4), later(2))
    assert ([A, B, C], [1, 1, 4]) == (
        urls(state),
        [each.weight for each in state.agents["reader"].instances],
    )
    assert [False, True, True] == [each.added for each in state.agents["reader"].instances]
    assert [("instance_added", B), ("instance_added", C)] == happened(state)


def test_a_known_instance_may_be_given_another_weight() -> None:
    """The same again is no news."""
    state = fleet(A).add_instance(change(A, weight=3), later(1))
    assert (3, [("weight_changed", A)]) == (instance(state).weight, happened(state))
    assert state is state.add_instance(change(A), later(2))
    assert state is state.add_instance(change(A, weight=3), later(2))


def test_a_removed_instance_comes_back_as_it_was_configured() -> None:
    """With the configuration's weight, and not as an added one."""
    state = fleet(A).configure(config(A, B, weight=5), later(1))
    state = state.remove_instance(change(B), later(2)).add_instance(change(B), later(3))
    assert (5, False, ()) == (
        instance(state, B).weight,
        instance(state, B).added,
        state.agents["reader"].removed,
    )


def test_an_added_instance_leaves_no_trace_when_removed() -> None:
    """Only those of the configuration have to be kept away."""
    state = fleet(A).add_instance(change(B), later(1)).remove_instance(change(B), later(2))
    assert ([A], ()) == (urls(state), state.agents["reader"].removed)


Act = Callable[[FleetState], FleetState]


@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        (
            lambda state: state.drain(order(C), later(1)),
            "not_found",
            "Agent 'reader' has no instance http://c; it has: http://a",
        ),
        (
            lambda state: state.remove_instance(change(C), later(1)),
            "not_found",
            "has no instance http://c",
        ),
        (
            lambda state: state.remove_instance(change(A), later(1)),
            "conflict",
            "http://a is the last instance of agent 'reader'; add another first",
        ),
        (lambda state: state.set_limit(limit(), later(1)), "invalid", "Name what to set"),
        (
            lambda state: state.trip(order().model_copy(update={"agent": "raeder"}), later(1)),
            "not_found",
            "Agent 'raeder' is not known; did you mean 'reader'?",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(act: Act, kind: str, words: str) -> None:
    """With its kind, and words that say how to mend it."""
    with pytest.raises(OrderRefused) as caught:
        act(fleet(A))
    assert kind == caught.value.kind
    assert words in str(caught.value)


def test_an_agent_has_a_most_of_instances() -> None:
    """The snapshot has to fit into one message."""
    state = fleet(*(f"http://h:{port}" for port in range(1, MAX_INSTANCES + 1)))
    with pytest.raises(OrderRefused, match="500 instances, which is the most") as caught:
        state.add_instance(change(A), later(1))
    assert "conflict" == caught.value.kind


def test_long_lists_of_names_are_cut() -> None:
    """Nobody reads 500 URLs."""
    text = unknown_agent("x", [f"agent-{number}" for number in range(12)])
    assert text.endswith("agent-9 and 2 more")
    assert "Agent 'x' is not known; there are none" == unknown_agent("x", [])


@pytest.mark.parametrize(
    "url", ["", "h:1", "ftp://h", "http://u:p@h", "http://h?x=1", "http://h h"]
)
def test_an_instance_has_a_url_as_the_configuration_wants_it(url: str) -> None:
    """Or the order does not fit."""
    with pytest.raises(ValidationError):
        InstanceChange(agent="reader", url=url)
