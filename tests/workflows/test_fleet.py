"""AgentFleet: configurations, reports, health checks, restarts and new runs."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError

import workflows.fleet
from activities.watch_health import BEAT_SECONDS
from orchestrator.engine.fleet import Fleet
from orchestrator.fleet.records import FLEET_ID, HealthState, InstanceOrder
from orchestrator.resilience.breaker_policy import BreakerState
from tests.support.stack import eventually
from tests.workflows.fleet_stage import (
    RPC_SECONDS,
    A,
    B,
    Checks,
    config,
    fleet_of,
    happened,
    instance,
    reader,
    reported,
    settled,
    worker_of,
)
from tests.workflows.stage import events
from workflows.fleet import HEARTBEAT_TIMEOUT

HANDED_OVER_SECONDS = 5.0


def test_a_watch_tells_twice_that_it_lives_before_it_counts_as_lost() -> None:
    """One sign of life may be lost."""
    assert timedelta(seconds=2 * BEAT_SECONDS) < HEARTBEAT_TIMEOUT


# One fleet for each engine: these tests are in one module, so one process runs them in turn.


async def test_a_fleet_starts_with_the_configuration_of_who_needs_it(client: Client) -> None:
    """Starting it again changes nothing; it runs once."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config())
        await settled(fleet)
        before = await fleet.snapshot()
        await fleet.ensure(config())
        after = await fleet.snapshot()
    assert [A, B] == [each.url for each in (before.agents or {})["reader"].instances]
    assert before == after


async def test_who_knows_the_version_gets_only_that(client: Client) -> None:
    """A process that asks every second is sent news alone."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config())
        await settled(fleet)
        version = (await fleet.snapshot()).version
        known = await fleet.snapshot(version)
    assert (version, None) == (known.version, known.agents)


async def test_a_new_configuration_changes_the_running_fleet(client: Client) -> None:
    """Instances come and go, and what comes is checked."""
    checks = Checks()
    async with fleet_of(client, checks) as fleet:
        await fleet.ensure(config(A))
        await settled(fleet)
        await fleet.ensure(config(B))
        await settled(fleet)
        [found] = (await reader(fleet)).instances
    assert (B, HealthState.HEALTHY) == (found.url, found.health)


async def test_a_breaker_that_opens_is_known_to_all(client: Client) -> None:
    """With its time, its reason and its process; closing it ends that."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config())
        await fleet.report(reported(BreakerState.OPEN, seconds=60))
        opened = (await instance(fleet)).breaker
        await fleet.report(reported(BreakerState.CLOSED))
        closed = (await instance(fleet)).breaker
    assert opened is not None
    assert opened.until is not None
    assert closed is not None
    assert (BreakerState.OPEN, 60.0, "it failed", "worker@1") == (
        opened.state,
        (opened.until - opened.changed_at).total_seconds(),
        opened.reason,
        opened.process,
    )
    assert (BreakerState.CLOSED, True) == (closed.state, closed.version > opened.version)


async def test_health_checks_follow_the_instances(client: Client) -> None:
    """An instance that goes down and comes back is recorded both times, with why."""
    checks = Checks({B: "answered 500"})
    async with fleet_of(client, checks) as fleet:
        await fleet.ensure(config())
        await settled(fleet)
        before = [each.health for each in (await reader(fleet)).instances]
        checks.problems = {A: "refused"}

        async def turned() -> Any:
            found = (await reader(fleet)).instances
            return [each.health for each in found] == before[::-1] and found

        first, second = await eventually(turned, what="both changes")
    assert [HealthState.HEALTHY, HealthState.UNHEALTHY] == before
    assert ("refused", "") == (first.health_reason, second.health_reason)


async def test_an_added_instance_is_checked_at_once(client: Client) -> None:
    """The checks under way are given up for new ones."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config(A))
        await settled(fleet)
        handle = client.get_workflow_handle(FLEET_ID)
        await handle.execute_update("add_instance", {"agent": "reader", "url": B})
        await settled(fleet)
        added = await instance(fleet, B)
        types = await events(handle)
    assert (True, HealthState.HEALTHY) == (added.added, added.health)
    assert "ACTIVITY_TASK_CANCEL_REQUESTED" in types


async def test_another_worker_takes_the_checks_up_at_once(client: Client) -> None:
    """It waits for no missed heartbeat of the one that stopped."""
    first, second = Checks(), Checks()
    async with worker_of(client, first):
        fleet = Fleet(client, RPC_SECONDS)
        await fleet.ensure(config())
        await settled(fleet)
    asked = len(first.asked)
    async with fleet_of(client, second):

        async def checking() -> bool:
            return bool(second.asked)

        await eventually(checking, HANDED_OVER_SECONDS, "checks by the second worker")
    assert asked == len(first.asked)


async def test_a_quiet_fleet_writes_no_history(client: Client) -> None:
    """However often its instances are checked and it is asked."""
    checks = Checks()
    async with fleet_of(client, checks) as fleet:
        await fleet.ensure(config())
        await settled(fleet)
        handle = client.get_workflow_handle(FLEET_ID)

        async def watched() -> bool:
            return "ACTIVITY_TASK_SCHEDULED" == (await events(handle))[-1]

        await eventually(watched, what="the next watch")
        before, asked = await events(handle), len(checks.asked)

        async def checked() -> bool:
            await fleet.snapshot()
            return len(checks.asked) > asked + 20

        await eventually(checked, what="20 checks")
        after = await events(handle)
    assert before == after


async def test_a_long_run_goes_on_as_a_new_one(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that was known, and nothing lost of what came meanwhile."""
    monkeypatch.setattr(workflows.fleet, "MAX_HISTORY_EVENTS", 40)
    async with fleet_of(client, sandboxed=False) as fleet:
        await fleet.ensure(config())
        handle = client.get_workflow_handle(FLEET_ID)
        first = (await handle.describe()).run_id
        orders = [InstanceOrder(agent="reader", reason=f"{n}") for n in range(30)]
        for each in range(0, 30, 10):
            await asyncio.gather(*(fleet.order("reset", order) for order in orders[each:][:10]))
        reasons = [each.reason for each in await fleet.events(200) if each.what == "reset"]
        last = await handle.describe()
    assert first != last.run_id
    assert WorkflowExecutionStatus.RUNNING == last.status
    assert sorted(f"{n}" for n in range(30)) == sorted(set(reasons))
    assert 60 == len(reasons)


async def test_a_recovered_agent_gets_its_dead_letters_back(client: Client) -> None:
    """Once for each recovery, at the configured rate."""
    checks = Checks()
    async with fleet_of(client, checks) as fleet:
        await fleet.ensure(config(redrive_on_recovery=True, redrive_rate=7.0))
        await fleet.report(reported(BreakerState.OPEN))
        await fleet.report(reported(BreakerState.CLOSED))

        async def redriven() -> bool:
            return bool(checks.redriven)

        await eventually(redriven, what="the redrive")
    assert [("reader", 7.0)] == [(each.agent, each.rate) for each in checks.redriven]


async def test_a_failed_redrive_is_an_event(client: Client) -> None:
    """The fleet goes on."""
    error = ApplicationError("the engine is away", non_retryable=True)
    async with fleet_of(client, Checks(redrive_error=error)) as fleet:
        await fleet.ensure(config(redrive_on_recovery=True))
        await fleet.report(reported(BreakerState.OPEN))
        await fleet.report(reported(BreakerState.CLOSED))
        event = await happened(fleet, "redrive_failed")
        await fleet.snapshot()
    assert ("reader", True) == (event.agent, "the engine is away" in event.reason)


async def test_no_dead_letters_come_back_unless_wanted(client: Client) -> None:
    """Which is the default."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config())
        await fleet.report(reported(BreakerState.OPEN))
        await fleet.report(reported(BreakerState.CLOSED))
        await fleet.snapshot()
        history = await client.get_workflow_handle(FLEET_ID).fetch_history()
    assert "redrive_agent" not in json.dumps(history.to_json_dict())


async def test_the_web_ui_shows_the_fleet(client: Client) -> None:
    """As a table, made anew with each change."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config())
        await settled(fleet)
        await fleet.order("trip", InstanceOrder(agent="reader", instance=A))
        handle = client.get_workflow_handle(FLEET_ID)
        shown = str(await handle.query("__temporal_workflow_metadata"))
    assert "| reader | http://a | healthy | forced_open |" in shown
    assert "| reader | http://b | healthy | closed |" in shown
