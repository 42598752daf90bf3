"""What a process knows of the fleet, and what the fleet learns from it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from temporalio.client import Client

from orchestrator.call_errors import AgentFailed
from orchestrator.config import Agent, CircuitBreaker, ErrorRecovery, Instance, Settings
from orchestrator.engine.fleet import Fleet, FleetGone, Mark, fleet_config
from orchestrator.engine.fleet_view import ASK_SECONDS, FleetView
from orchestrator.errors import EngineUnavailable, OrderRefused
from orchestrator.fleet.records import (
    FLEET_ID,
    BreakerReports,
    FleetSnapshot,
    HealthState,
    InstanceChange,
    InstanceOrder,
)
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.resilience.pool import Pools
from tests.support.stack import eventually
from tests.workflows.fleet_stage import (
    RPC_SECONDS,
    A,
    B,
    fleet_of,
    happened,
    instance,
    reader,
    settled,
)

SEEN_SECONDS = 10.0
SETTINGS = Settings(
    agents={"reader": Agent(instances=(Instance(url=A), Instance(url=B)))},
    error_recovery=ErrorRecovery(
        circuit_breaker_threshold=1,
        circuit_breaker_timeout=20.0,
        circuit_breaker=CircuitBreaker(half_open_permits=1),
    ),
)


@asynccontextmanager
async def process(client: Client, name: str) -> AsyncIterator[tuple[FleetView, Pools]]:
    """The view and the pools of one process."""
    view = FleetView(Fleet(client, RPC_SECONDS), fleet_config(SETTINGS), name)
    pools = Pools.of(SETTINGS)
    view.watch(pools)
    running = asyncio.create_task(view.run())
    try:
        yield view, pools
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def known(view: FleetView) -> None:
    """Wait until the fleet has answered."""

    async def answered() -> bool:
        return view.version > 0

    await eventually(answered, what="the fleet's answer")


def fail(pools: Pools) -> str:
    """A call that fails, which opens its instance's breaker; the instance."""
    with suppress(AgentFailed), pools.of_agent("reader").lease("/read") as lease:
        raise AgentFailed("it answered 500")
    return lease.instance


def breaker(pools: Pools, url: str) -> BreakerState:
    """An instance's breaker in one process."""
    [found] = [each for each in pools.of_agent("reader").instances if each.url == url]
    return found.breaker.state


def test_before_the_fleet_answers_the_configuration_is_known() -> None:
    """Of unknown health, and it says that nobody has answered."""
    fleet: Any = None
    view = FleetView(fleet, fleet_config(SETTINGS), "x")
    assert [A, B] == [each.url for each in view.agents["reader"].instances]
    assert (False, None, 0) == (view.reachable, view.as_of, view.version)


def test_the_interval_of_all_agents_holds_where_none_is_given() -> None:
    """And everything else is as the agent's own settings say."""
    check = fleet_config(SETTINGS).agents["reader"].health_check
    assert (30.0, 5.0, "/health", 2, 3) == (
        check.interval,
        check.timeout,
        check.path,
        check.healthy_threshold,
        check.unhealthy_threshold,
    )


async def test_a_breaker_that_opens_in_one_process_opens_in_all(client: Client) -> None:
    """Within two seconds; so does its closing by an operator."""
    async with (
        fleet_of(client) as fleet,
        process(client, "one") as (_, first),
        process(client, "two") as (view, second),
    ):
        await known(view)
        url = fail(first)
        opened = time.monotonic()

        async def seen() -> bool:
            return breaker(second, url) is BreakerState.OPEN

        await eventually(seen, what="the open breaker")
        seconds = time.monotonic() - opened
        record = (await instance(fleet, url)).breaker
        await fleet.order("reset", InstanceOrder(agent="reader", instance=url))

        async def closed() -> bool:
            return breaker(first, url) is breaker(second, url) is BreakerState.CLOSED

        await eventually(closed, what="both closed")
    assert seconds < SEEN_SECONDS
    assert record is not None
    assert record.until is not None
    assert ("one", True) == (record.process, "it answered 500" in record.reason)
    assert 18 < (record.until - record.changed_at).total_seconds() < 22


async def test_after_its_order_a_process_acts_by_it(client: Client) -> None:
    """At once, not with its next look."""
    async with fleet_of(client), process(client, "one") as (view, pools):
        await known(view)
        await view.order("add_instance", InstanceChange(agent="reader", url="http://c"))
        added = [each.url for each in pools.of_agent("reader").instances]
        await view.order("drain", InstanceOrder(agent="reader"))
        unavailable = pools.of_agent("reader").unavailability()
        with pytest.raises(OrderRefused) as caught:
            await view.order("drain", InstanceOrder(agent="raeder"))
    assert [A, B, "http://c"] == added
    assert unavailable is not None
    assert ("not_found", True) == (caught.value.kind, "did you mean" in str(caught.value))


async def test_a_fleet_that_was_ended_is_started_again(client: Client) -> None:
    """With the configuration; what it had known is gone, and every process hears so."""
    async with fleet_of(client) as fleet, process(client, "one") as (view, pools):
        await known(view)
        await view.order("drain", InstanceOrder(agent="reader"))
        before = view.version
        with capture_logs() as logs:
            await client.get_workflow_handle(FLEET_ID).terminate(reason="to see what happens")

            async def back() -> bool:
                return view.reachable and view.version > before

            await eventually(back, what="the new fleet")
        drained = [each.draining for each in (await reader(fleet)).instances]
        unavailable = pools.of_agent("reader").unavailability()
    events = [each["event"] for each in logs if each["event"].startswith("fleet_")]
    assert [False, False] == drained
    assert unavailable is None
    assert 1 == events.count("fleet_unreachable") == events.count("fleet_reachable")


async def test_a_fleet_that_is_gone_says_so(client: Client) -> None:
    """To whoever asks it directly, rather than with what it last knew."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(fleet_config(SETTINGS))
        await fleet.snapshot()
        await client.get_workflow_handle(FLEET_ID).terminate()
        with pytest.raises(FleetGone):
            await fleet.snapshot()
        with pytest.raises(FleetGone):
            await fleet.order("drain", InstanceOrder(agent="reader"))
        with pytest.raises(FleetGone):
            await fleet.report(BreakerReports(process="x", reports=()))


async def test_a_fleet_without_a_worker_is_not_waited_for_long(client: Client) -> None:
    """The engine is there, but nobody answers for the fleet."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(fleet_config(SETTINGS))
    hurried = Fleet(client, 0.3)
    await hurried.ensure(fleet_config(SETTINGS))
    try:
        with pytest.raises(EngineUnavailable):
            await hurried.snapshot()
        with pytest.raises(EngineUnavailable):
            await hurried.order("drain", InstanceOrder(agent="reader"))
    finally:
        await client.get_workflow_handle(FLEET_ID).terminate()


class Noted(Fleet):
    """A fleet that notes how often it was asked itself, and how often only the engine."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, RPC_SECONDS)
        self.marks = self.snapshots = 0

    async def mark(self) -> Mark:
        """How far it has come."""
        self.marks += 1
        return await super().mark()

    async def snapshot(self, known_version: int | None = None) -> FleetSnapshot:
        """All agents."""
        self.snapshots += 1
        return await super().snapshot(known_version)


async def test_a_fleet_to_which_nothing_happens_is_seldom_asked(client: Client) -> None:
    """The engine says that nothing has; what happens is heard of with the next look."""
    seconds = [0.0]
    async with fleet_of(client) as fleet:
        await fleet.ensure(fleet_config(SETTINGS))
        await settled(fleet)
        noted = Noted(client)
        view = FleetView(noted, fleet_config(SETTINGS), "one", clock=lambda: seconds[0])

        async def at_rest() -> bool:
            before = noted.snapshots
            await view.refresh()
            return noted.snapshots == before

        await eventually(at_rest, what="a look for which the fleet was not asked")
        first = view.as_of
        marks, snapshots = noted.marks, noted.snapshots
        await view.refresh()
        assert (marks + 1, snapshots) == (noted.marks, noted.snapshots)
        assert first is not None
        assert view.as_of is not None
        assert view.as_of > first
        await fleet.order("drain", InstanceOrder(agent="reader"))
        await view.refresh()
        assert [True, True] == [each.draining for each in view.agents["reader"].instances]
        await eventually(at_rest, what="rest again")
        snapshots, seconds[0] = noted.snapshots, ASK_SECONDS
        await view.refresh()
        assert snapshots + 1 == noted.snapshots


async def test_a_fleet_that_is_gone_is_missed_with_the_next_look(client: Client) -> None:
    """Whatever it answered before; it is started again at once."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(fleet_config(SETTINGS))
        view = FleetView(fleet, fleet_config(SETTINGS), "one")
        await view.refresh()
        assert view.reachable
        before = await fleet.mark()
        await client.get_workflow_handle(FLEET_ID).terminate()
        with pytest.raises(FleetGone):
            await fleet.mark()
        await view.refresh()
        assert not view.reachable
        assert before.run_id != (await fleet.mark()).run_id


async def test_a_fleet_that_nobody_runs_any_more_is_noticed(client: Client) -> None:
    """Though nothing happens to it: it is asked itself, if seldom."""
    seconds = [0.0]
    try:
        async with fleet_of(client, keep=True) as fleet:
            await fleet.ensure(fleet_config(SETTINGS))
            await settled(fleet)
            view = FleetView(
                Fleet(client, 1.0), fleet_config(SETTINGS), "one", clock=lambda: seconds[0]
            )
            await view.refresh()
            assert view.reachable
        seconds[0] = ASK_SECONDS
        await view.refresh()
        seen = view.as_of
        assert not view.reachable
        assert () == await view.events(10)
        await view.refresh()
        assert (False, seen) == (view.reachable, view.as_of)
    finally:
        await client.get_workflow_handle(FLEET_ID).terminate()


async def test_a_fleet_that_is_back_is_known_to_be_with_the_next_look() -> None:
    """And what could not be told is told then, though nothing has happened to it meanwhile."""
    fleet = Away()
    view = FleetView(cast("Fleet", fleet), fleet_config(SETTINGS), "one", clock=lambda: 0.0)
    pools = Pools.of(SETTINGS)
    view.watch(pools)
    fleet.away = False
    await view.refresh()
    assert view.reachable
    fleet.away = True
    await view.refresh()
    assert not view.reachable
    fleet.away = False
    await view.refresh()
    assert view.reachable

    fleet.deaf = True
    fail(pools)
    running = asyncio.create_task(view.run())

    async def lost() -> bool:
        return fleet.lost > 0

    async def told() -> bool:
        return bool(fleet.told)

    await eventually(lost, what="a report that is lost")
    fleet.deaf = False
    await eventually(told, what="the report")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Away:
    """A fleet that answers when the test says so, and keeps what it was told unless ``deaf``."""

    def __init__(self) -> None:
        self.away = True
        self.deaf = False
        self.lost = 0
        self.told: list[BreakerReports] = []

    async def ensure(self, _: object) -> None:
        """Start."""
        self._answer()

    async def mark(self) -> Mark:
        """It does not move."""
        self._answer()
        return Mark("the run", 1)

    async def snapshot(self, _: object) -> FleetSnapshot:
        """Nothing new."""
        self._answer()
        return FleetSnapshot(version=1)

    async def report(self, reports: BreakerReports) -> None:
        """Take a report."""
        self._answer()
        if self.deaf:
            self.lost += 1
            raise EngineUnavailable("The engine is busy")
        self.told.append(reports)

    def _answer(self) -> None:
        if self.away:
            raise EngineUnavailable("The engine is unreachable")


async def test_what_happens_meanwhile_is_told_later() -> None:
    """Only the last of each instance; and a process goes on with what it knows."""
    fleet: Any = Away()
    view = FleetView(fleet, fleet_config(SETTINGS), "one")
    pools = Pools.of(SETTINGS)
    view.watch(pools)
    with capture_logs() as logs:
        running = asyncio.create_task(view.run())
        first = fail(pools)
        second = fail(pools)
        [member] = [each for each in pools.of_agent("reader").instances if each.url == first]
        member.breaker.reset("by hand")
        await view.refresh()
        await view.refresh()
        unavailable = not view.reachable
        fleet.away = False
        await view.refresh()

        async def told() -> bool:
            return bool(fleet.told)

        await eventually(told, what="the report")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    events = [each["event"] for each in logs]
    assert unavailable
    assert view.reachable
    assert (1, 1) == (events.count("fleet_unreachable"), events.count("fleet_reachable"))
    assert {first, second} == {A, B}
    assert [{(first, BreakerState.OPEN), (second, BreakerState.OPEN)}] == [
        {(each.instance, each.state) for each in reports.reports} for reports in fleet.told
    ]
    remaining = {each.instance: each.remaining_seconds for each in fleet.told[0].reports}
    assert 0 == remaining[first]
    assert 15 < remaining[second] <= 20


async def test_a_listener_that_fails_keeps_no_news_from_others(client: Client) -> None:
    """Its failure is logged."""
    heard: list[FleetSnapshot] = []

    def broken(*_: object) -> None:
        raise ValueError

    async with fleet_of(client), process(client, "one") as (view, _):
        view.listen(broken)
        view.listen(lambda snapshot, _: heard.append(snapshot))
        with capture_logs() as logs:
            await known(view)
    assert heard
    assert "fleet_listener_failed" in [each["event"] for each in logs]


async def test_the_fleet_hears_of_health_and_all_hear_of_it(client: Client) -> None:
    """A process that joins knows what is known."""
    async with fleet_of(client) as fleet, process(client, "one") as (view, _):
        await known(view)
        await happened(fleet, "healthy")
        await view.refresh()
        healthy = [each.health for each in view.agents["reader"].instances]
    assert [HealthState.HEALTHY] * 2 == healthy
