"""Which instances calls go to: those that work, and those that come back in their measure."""

from contextlib import suppress

import pytest

from orchestrator.call_errors import AgentFailed, AgentOverloaded, AgentTimedOut
from orchestrator.errors import AgentUnavailable
from orchestrator.models import BlockedBy
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.resilience.pool import Pool
from tests.unit.orchestrator.resilience.pools import (
    HEALTHY,
    NOW,
    OPEN_SECONDS,
    PERMITS,
    UNHEALTHY,
    A,
    B,
    C,
    Clock,
    fail,
    held,
    in_flight,
    instance,
    leased,
    member,
    pool,
    record,
    turns,
)


def refusal(chosen: Pool) -> AgentUnavailable:
    """Why a call is not made."""
    with pytest.raises(AgentUnavailable) as caught:
        leased(chosen)
    return caught.value


def half_open(clock: Clock, *urls: str) -> Pool:
    """A pool whose every breaker has just become half-open."""
    chosen = pool(*urls, clock=clock)
    for url in urls:
        fail(chosen, f"{url}/x")
    clock.now += OPEN_SECONDS
    return chosen


def test_a_drained_instance_is_left_out() -> None:
    """The others take its turns."""
    chosen = pool(A, B, C)
    member(chosen, B).draining = True
    assert "acac" == turns(chosen, 4)


def test_a_broken_instance_is_left_out() -> None:
    """Until its time is up."""
    chosen = pool(A, B, C)
    fail(chosen, f"{B}/x")
    assert "acac" == turns(chosen, 4)


def test_an_unhealthy_instance_is_left_out() -> None:
    """While enough others are well."""
    chosen = pool(A, B, C)
    member(chosen, B).healthy = False
    assert "acac" == turns(chosen, 4)


def test_when_too_few_are_healthy_all_are_used() -> None:
    """The health checks may be what is wrong."""
    chosen = pool(A, B, C)
    member(chosen, A).healthy = member(chosen, B).healthy = False
    assert "abcabc" == turns(chosen, 6)


def test_breakers_and_operators_are_obeyed_in_a_panic_too() -> None:
    """Neither is a guess."""
    chosen = pool(A, B, C, "http://d:1")
    for each in chosen.instances:
        each.healthy = False
    member(chosen, A).draining = True
    fail(chosen, f"{B}/x")
    assert "cdcd" == turns(chosen, 4)


def test_drained_instances_do_not_make_a_panic() -> None:
    """The share is of those that are meant to be used: one of two here, not one of four."""
    chosen = pool(A, B, C, "http://d:1")
    member(chosen, C).draining = member(chosen, "http://d:1").draining = True
    member(chosen, A).healthy = False
    assert "bb" == turns(chosen, 2)


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, "bb"), (0.34, "ab"), (1.0, "ab")])
def test_the_share_that_makes_a_panic_is_configured(threshold: float, expected: str) -> None:
    """One of three is too little for 0.34; with 0 there is none."""
    chosen = pool(A, B, C, panic_threshold=threshold)
    for url in (A, C):
        member(chosen, url).healthy = False
    assert expected == turns(chosen, 2)


def test_without_a_panic_an_agent_that_nobody_finds_healthy_is_unavailable() -> None:
    """And says so, rather than that it has too much to do."""
    chosen = pool(A, B, panic_threshold=0.0)
    for each in chosen.instances:
        each.healthy = False
    assert (BlockedBy.BREAKER, None, 0) == (
        refusal(chosen).blocked_by,
        refusal(chosen).retry_after,
        chosen.capacity(),
    )
    assert chosen.unavailability() is not None


def test_a_retry_prefers_an_instance_that_was_not_tried() -> None:
    """Whose ever turn it is."""
    chosen = pool(A, B, C)
    assert [C, C] == [leased(chosen, tried=(A, B)).instance for _ in range(2)]


def test_a_retry_takes_a_tried_instance_rather_than_none() -> None:
    """When no other can be called."""
    chosen = pool(A, B)
    fail(chosen, f"{B}/x")
    assert A == leased(chosen, tried=(A,)).instance


@pytest.mark.parametrize("count", [1, 3])
def test_with_every_breaker_open_nothing_is_called(count: int) -> None:
    """The call learns when the first of them may be tried."""
    clock = Clock()
    chosen = pool(*(A, B, C)[:count], clock=clock)
    for each in chosen.instances:
        fail(chosen, f"{each.url}/x")
        clock.now += 5
    error = refusal(chosen)
    assert (BlockedBy.BREAKER, OPEN_SECONDS - 5 * count) == (error.blocked_by, error.retry_after)
    assert "Agent 'reader' is currently unavailable" == str(error)


def test_an_agent_of_which_all_is_drained_is_paused() -> None:
    """Also where breakers are open beside that."""
    chosen = pool(A, B)
    fail(chosen, f"{A}/x")
    for each in chosen.instances:
        each.draining = True
    assert (BlockedBy.PAUSED, None) == (refusal(chosen).blocked_by, refusal(chosen).retry_after)


def test_an_instance_that_an_operator_shut_has_no_time() -> None:
    """Another's is told, where there is one."""
    chosen = pool(A, B)
    member(chosen, A).breaker.force_open("work")
    fail(chosen, f"{B}/x")
    assert OPEN_SECONDS == refusal(chosen).retry_after
    member(chosen, B).breaker.force_open("work")
    assert refusal(chosen).retry_after is None


def test_what_a_new_call_would_meet_is_what_a_call_meets() -> None:
    """Admission asks without calling."""
    clock = Clock()
    chosen = pool(A, clock=clock)
    assert chosen.unavailability() is None
    fail(chosen)
    expected, told = refusal(chosen), chosen.unavailability()
    assert told is not None
    assert (expected.blocked_by, expected.retry_after) == (told.blocked_by, told.retry_after)
    clock.now += OPEN_SECONDS
    assert chosen.unavailability() is None


def test_an_agent_without_instances_is_not_refused_at_admission() -> None:
    """Its rules may name whole URLs."""
    assert pool().unavailability() is None


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("ccc", BreakerState.CLOSED),
        ("cof", BreakerState.CLOSED),
        ("dof", BreakerState.CLOSED),
        ("hof", BreakerState.HALF_OPEN),
        ("oof", BreakerState.OPEN),
        ("fff", BreakerState.OPEN),
        ("", BreakerState.CLOSED),
    ],
)
def test_the_breaker_state_of_an_agent(states: str, expected: BreakerState) -> None:
    """The best of its instances': closed, half-open, open, forced open or disabled."""
    clock = Clock()
    chosen = pool(*(A, B, C)[: len(states)], clock=clock)
    for each, state in zip(chosen.instances, states, strict=True):
        if state == "h":
            fail(chosen, f"{each.url}/x")
    clock.now += OPEN_SECONDS
    for each, state in zip(chosen.instances, states, strict=True):
        if state == "o":
            fail(chosen, f"{each.url}/x")
        elif state == "f":
            each.breaker.force_open("work")
        elif state == "d":
            each.breaker.disable("work")
    assert expected is chosen.breaker_state


def test_a_half_open_instance_has_no_more_calls_than_permits() -> None:
    """Each is marked as a trial; the next waits a moment."""
    clock = Clock()
    chosen = half_open(clock, A)
    with chosen.lease("/x") as first, chosen.lease("/x") as second:
        assert (True, True) == (first.trial, second.trial)
        assert (BlockedBy.BREAKER, 0.5) == (
            refusal(chosen).blocked_by,
            refusal(chosen).retry_after,
        )
    assert BreakerState.CLOSED is chosen.breaker_state


def test_a_failed_trial_opens_the_breaker_again() -> None:
    """For twice as long."""
    clock = Clock()
    chosen = half_open(clock, A)
    fail(chosen)
    assert 2 * OPEN_SECONDS == refusal(chosen).retry_after


def test_a_trial_that_is_given_up_gives_its_permit_back() -> None:
    """Cancelled, or answered with something that says nothing."""
    clock = Clock()
    chosen = half_open(clock, A)
    for error in (AgentOverloaded("429"), ValueError()):
        for _ in range(PERMITS + 1):
            with pytest.raises(type(error)), chosen.lease("/x"):
                raise error
    assert (BreakerState.HALF_OPEN, PERMITS) == (chosen.breaker_state, chosen.capacity())


@pytest.mark.parametrize(
    ("seconds", "timeout", "expected"),
    [
        (0.5, 30.0, BreakerState.CLOSED),
        (0.9, 30.0, BreakerState.OPEN),
        (0.095, 0.1, BreakerState.OPEN),
        (0.08, 0.1, BreakerState.CLOSED),
    ],
)
def test_a_timeout_counts_when_the_instance_had_its_time(
    seconds: float, timeout: float, expected: BreakerState
) -> None:
    """A second or nearly its whole timeout; a task's deadline may have left less."""
    clock = Clock()
    clock.now = 0.0
    chosen = pool(A, clock=clock)
    with suppress(AgentTimedOut), chosen.lease("/x", timeout=timeout):
        clock.now += seconds
        raise AgentTimedOut("it took too long")
    assert expected is chosen.breaker_state


def test_an_agent_has_no_more_calls_than_connections() -> None:
    """All its instances together."""
    chosen = pool(A, B, max_connections=5)
    with held(chosen):
        assert [3, 2] == in_flight(chosen)
        assert (BlockedBy.CAPACITY, 0.5) == (
            refusal(chosen).blocked_by,
            refusal(chosen).retry_after,
        )
    assert [0, 0] == in_flight(chosen)


def test_an_instance_that_comes_back_is_ramped_up() -> None:
    """From the trial permits to all connections, in ten seconds."""
    clock = Clock()
    chosen = half_open(clock, A)
    leased(chosen)
    leased(chosen)
    most = []
    for _ in range(6):
        with held(chosen):
            most.append(in_flight(chosen)[0])
        assert most[-1] == chosen.capacity()
        clock.now += 2
    assert [2, 3, 5, 6, 8, 10] == most


def test_without_a_slow_start_it_has_all_at_once() -> None:
    """Zero seconds switch it off."""
    clock = Clock()
    chosen = pool(A, clock=clock, slow_start_seconds=0.0)
    chosen.instances[0].come_back()
    assert 10 == chosen.capacity()


def test_an_instance_that_is_ramped_up_has_fewer_turns() -> None:
    """Half of the others' when half the time has passed."""
    clock = Clock()
    chosen = pool(A, B, clock=clock)
    member(chosen, B).come_back()
    assert 1 == turns(chosen, 10).count("b")
    clock.now += 5
    assert 10 == turns(chosen, 30).count("b")
    clock.now += 5
    assert 15 == turns(chosen, 30).count("b")


@pytest.mark.parametrize(
    ("before", "after", "ramped"),
    [
        (UNHEALTHY, HEALTHY, True),
        ({"draining": True}, {"draining": False}, True),
        (HEALTHY, HEALTHY, False),
        (HEALTHY, UNHEALTHY, False),
    ],
)
def test_what_comes_back_is_ramped_up(
    before: dict[str, object], after: dict[str, object], *, ramped: bool
) -> None:
    """From a drain or an illness as from an open breaker."""
    chosen = pool(A, B)
    chosen.sync(record(instance(A, **before), instance(B)), NOW)
    chosen.sync(record(instance(A, **after), instance(B)), NOW)
    assert ramped is member(chosen, A).is_ramped


def test_no_instance_is_ramped_up_when_the_process_starts() -> None:
    """None of them has been away."""
    chosen = pool(A, B)
    chosen.sync(record(instance(A, **HEALTHY), instance(B)), NOW)
    assert (False, False, 10) == (*(each.is_ramped for each in chosen.instances), chosen.capacity())


def test_a_retryable_failure_is_handed_on() -> None:
    """The lease only looks at it."""
    with pytest.raises(AgentFailed, match="it answered 500"), pool(A).lease("/x"):
        raise AgentFailed("it answered 500")
