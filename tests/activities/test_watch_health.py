"""Health checks of real agents, until one of them has news."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

import activities.watch_health
from activities.watch_health import Course, HealthWatcher
from orchestrator.fleet.records import (
    HealthChange,
    HealthChanges,
    HealthCheckSpec,
    HealthState,
    HealthWatch,
    WatchedAgent,
)
from orchestrator.transports.http import HttpTransport
from tests.support.agents import DEADLINE_SECONDS, Agent, Call, Reply

HEALTHY, UNHEALTHY, UNKNOWN = HealthState.HEALTHY, HealthState.UNHEALTHY, HealthState.UNKNOWN
NOWHERE = "http://127.0.0.1:9"
CALM = HealthCheckSpec(interval=60)
QUICK = HealthCheckSpec(interval=0.02)


@asynccontextmanager
async def watcher() -> AsyncIterator[HealthWatcher]:
    """One that checks by HTTP."""
    transport = HttpTransport(1000)
    try:
        yield HealthWatcher(transport.probe)
    finally:
        await transport.close()


def watch(check: HealthCheckSpec, **agents: dict[str, HealthState]) -> HealthWatch:
    """Whom to check and what is known of them."""
    return HealthWatch(
        agents={name: WatchedAgent(check=check, instances=each) for name, each in agents.items()}
    )


async def watched(
    given: HealthWatcher, asked: HealthWatch, environment: ActivityEnvironment | None = None
) -> HealthChanges:
    """What one watch brings."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await (environment or ActivityEnvironment()).run(given.watch_health, asked)


def states(changes: HealthChanges) -> dict[str, HealthState]:
    """By instance."""
    return {each.instance: each.state for each in changes.changes}


async def test_first_checks_decide_at_once_and_travel_together() -> None:
    """What answers 2xx is healthy, all else is not, with why."""
    async with Agent() as good, Agent(Reply(status=503)) as bad, watcher() as given:
        asked = watch(CALM, x={good.url: UNKNOWN, bad.url: UNKNOWN}, y={NOWHERE: UNKNOWN})
        found = await watched(given, asked)
    assert {good.url: HEALTHY, bad.url: UNHEALTHY, NOWHERE: UNHEALTHY} == states(found)
    reasons = {each.instance: each.reason for each in found.changes}
    assert ("", "answered 503") == (reasons[good.url], reasons[bad.url])
    assert reasons[NOWHERE]
    assert {"x", "y"} == {each.agent for each in found.changes}
    assert ["/health"] == [each.path for each in good.calls]


async def test_the_agents_own_path_status_and_timeout_count() -> None:
    """A status that is expected is right, whatever it is; one that is not is wrong."""
    check = HealthCheckSpec(path="/live", expected=(418,), timeout=0.2, interval=60)
    async with (
        Agent(Reply(status=418)) as teapot,
        Agent() as other,
        Agent(Reply(hang=True)) as slow,
        watcher() as given,
    ):
        found = await watched(
            given, watch(check, x=dict.fromkeys([teapot.url, other.url], UNKNOWN))
        )
        late = await watched(given, watch(check, x={slow.url: UNKNOWN}))
    assert {teapot.url: HEALTHY, other.url: UNHEALTHY} == states(found)
    assert [
        HealthChange(agent="x", instance=slow.url, state=UNHEALTHY, reason="no answer within 0.2 s")
    ] == list(late.changes)
    assert ["/live"] == [each.path for each in teapot.calls]


async def test_a_healthy_instance_must_fail_so_often_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A success between starts the count anew."""
    monkeypatch.setattr(activities.watch_health, "GATHER_SECONDS", 0)
    well = {1, 3}

    async with Agent() as agent, watcher() as given:

        def decide(_: Call) -> Reply:
            return Reply(status=200 if len(agent.calls) in well else 500)

        agent.behave(decide)
        found = await watched(given, watch(QUICK, x={agent.url: HEALTHY}))
        calls = len(agent.calls)
    assert {agent.url: UNHEALTHY} == states(found)
    assert 6 == calls


async def test_a_watch_goes_on_where_the_one_before_it_ended() -> None:
    """The news of one instance brings no new checks of the others."""
    async with Agent() as first, Agent() as second, watcher() as given:
        await watched(given, watch(CALM, x=dict.fromkeys([first.url, second.url], UNKNOWN)))
        asked = watch(CALM, x={first.url: HEALTHY, second.url: HEALTHY, NOWHERE: UNKNOWN})
        found = await watched(given, asked)
        calls = (len(first.calls), len(second.calls))
    assert {NOWHERE: UNHEALTHY} == states(found)
    assert (1, 1) == calls


async def test_what_this_worker_does_not_remember_is_checked_at_once() -> None:
    """It may come from a worker that is gone; no change is no news, though."""
    async with Agent() as agent, watcher() as given:
        asked = watch(CALM, x={agent.url: HEALTHY, NOWHERE: UNKNOWN})
        found = await watched(given, asked)
        await agent.called()
    assert {NOWHERE: UNHEALTHY} == states(found)


async def test_a_quiet_watch_ends_with_its_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no changes, after heartbeats."""
    monkeypatch.setattr(activities.watch_health, "ROUND_SECONDS", 0.3)
    monkeypatch.setattr(activities.watch_health, "BEAT_SECONDS", 0.02)
    beats: list[object] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    async with Agent() as agent, watcher() as given:
        found = await watched(given, watch(CALM, x={agent.url: HEALTHY}), environment)
    assert HealthChanges() == found
    assert len(beats) > 3


async def test_a_worker_that_stops_hands_the_watch_on() -> None:
    """By a failure that the engine repeats at once."""
    environment = ActivityEnvironment()
    async with Agent() as agent, watcher() as given:
        asked = watch(CALM, x={agent.url: HEALTHY})
        running = asyncio.create_task(watched(given, asked, environment))
        await agent.called()
        environment.worker_shutdown()
        with pytest.raises(ApplicationError) as caught:
            await running
    assert ("WorkerStopping", False) == (caught.value.type, caught.value.non_retryable)
    assert caught.value.next_retry_delay is not None
    assert caught.value.next_retry_delay.total_seconds() < 0.1


async def test_a_cancelled_watch_checks_no_more() -> None:
    """Nothing of it goes on in the background."""
    environment = ActivityEnvironment()
    async with Agent() as agent, watcher() as given:
        running = asyncio.create_task(
            watched(given, watch(QUICK, x={agent.url: HEALTHY}), environment)
        )
        await agent.called(2)
        environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        left = [each for each in asyncio.all_tasks() if "_follow" in repr(each.get_coro())]
    assert [] == left


async def test_a_check_that_breaks_ends_no_other() -> None:
    """It counts as a failed one."""

    async def broken(*_: object) -> str | None:
        raise RuntimeError

    found = await watched(HealthWatcher(broken), watch(CALM, x={NOWHERE: UNKNOWN}))
    assert ["the check itself failed: RuntimeError"] == [each.reason for each in found.changes]


async def test_only_so_many_are_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large fleet is no burst of connections."""
    monkeypatch.setattr(activities.watch_health, "CHECKS_AT_ONCE", 3)
    active, most = 0, 0

    async def probe(*_: object) -> str | None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.005)
        active -= 1
        return None

    instances = {f"http://h:{port}": UNKNOWN for port in range(1, 30)}
    await watched(HealthWatcher(probe), watch(CALM, x=instances))
    assert 3 == most


@pytest.mark.parametrize(
    ("state", "outcomes", "expected"),
    [
        (UNKNOWN, [True], HEALTHY),
        (UNKNOWN, [False], UNHEALTHY),
        (HEALTHY, [False, False], HEALTHY),
        (HEALTHY, [False, False, False], UNHEALTHY),
        (UNHEALTHY, [True], UNHEALTHY),
        (UNHEALTHY, [True, True], HEALTHY),
        (UNHEALTHY, [True, False, True], UNHEALTHY),
    ],
)
def test_a_state_changes_by_its_threshold(
    state: HealthState, outcomes: list[bool], expected: HealthState
) -> None:
    """Three failures, or two successes."""
    course = Course(state, 0.0)
    told = [course.note(CALM, well=well) for well in outcomes]
    assert expected is course.state
    assert (state is not expected) == any(told)


@pytest.mark.parametrize(
    ("state", "contrary", "interval", "expected"),
    [
        (HEALTHY, 0, 30.0, 30.0),
        (HEALTHY, 1, 30.0, 5.0),
        (UNHEALTHY, 0, 30.0, 5.0),
        (UNHEALTHY, 1, 2.0, 2.0),
        (HEALTHY, 0, 2.0, 2.0),
    ],
)
def test_what_is_not_calm_is_asked_again_soon(
    state: HealthState, contrary: int, interval: float, expected: float
) -> None:
    """At most every five seconds."""
    assert expected == Course(state, 0.0, contrary).pause(interval)
