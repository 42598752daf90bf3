"""AgentFleet: the one workflow that knows how all agents are, and does what operators order."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.watch_health import ROUND_SECONDS, HealthWatcher
    from orchestrator.dead_letters import RedriveAgent
    from orchestrator.errors import OrderRefused
    from orchestrator.fleet.records import (
        FLEET_WORKFLOW,
        AgentRecord,
        BreakerReports,
        FleetConfig,
        FleetEvent,
        FleetEvents,
        FleetSnapshot,
        Happened,
        HealthChanges,
        HealthWatch,
        InstanceChange,
        InstanceOrder,
        LimitOrder,
    )
    from orchestrator.fleet.recovery import recovered
    from orchestrator.fleet.state import EVENTS_KEPT, FleetState
    from orchestrator.fleet.views import summary
    from orchestrator.messaging.events import Event, EventType, News
    from orchestrator.telemetry.logging import get_logger
    from workflows.telling import tell

AnyOrder = TypeVar("AnyOrder", InstanceOrder, InstanceChange, LimitOrder)

MAX_HISTORY_EVENTS = 4000
"""A run goes on as a new one after so many, or when the engine suggests it."""
HEARTBEAT_TIMEOUT = timedelta(seconds=10)
WATCH_TIMEOUT = timedelta(seconds=ROUND_SECONDS + 60)
WATCH_PAUSE = timedelta(seconds=30)
REDRIVE_TIMEOUT = timedelta(hours=1)
REFUSED = OrderRefused.__name__

log = get_logger(__name__)


@workflow.defn(name=FLEET_WORKFLOW)
class AgentFleet:
    """Merge what the processes report, have the agents checked, obey operators."""

    @workflow.init
    def __init__(self, state: FleetState | None = None) -> None:
        self._state = state or FleetState()
        self._redriving: dict[str, asyncio.Task[None]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._describe()

    @workflow.run
    async def run(self, state: FleetState | None = None) -> None:  # noqa: ARG002 - __init__ has it
        """Run for ever, from run to run.

        Args:
            state: of the run before; a new fleet has none, and waits for ``configure``.
        """
        watching = asyncio.create_task(self._watch())
        await workflow.wait_condition(lambda: watching.done() or self._may_start_anew())
        if watching.done():
            await watching
        workflow.continue_as_new(self._state)

    def _may_start_anew(self) -> bool:
        """Whether this run is long enough, and nothing under way would be lost with it."""
        idle = workflow.all_handlers_finished() and not self._redriving and not self._telling
        return idle and _is_long()

    async def _watch(self) -> None:
        """Have the health of all instances watched, for ever."""
        while True:
            watch = self._state.health_watch()
            if not watch.agents:
                await workflow.wait_condition(lambda: bool(self._state.health_watch().agents))
                continue
            checking = self._check(watch)
            watched = _targets(watch)
            await workflow.wait_condition(
                lambda: checking.done() or _targets(self._state.health_watch()) != watched  # noqa: B023 - it is awaited here
            )
            if not checking.done():
                checking.cancel()
            try:
                found = await checking
            except ActivityError as error:
                # A worker that stops or dies is no such error: the engine finds another.
                if not is_cancelled_exception(error):
                    await workflow.sleep(WATCH_PAUSE)
            else:
                self._learn(self._state.check(found, workflow.now()))

    def _check(self, watch: HealthWatch) -> workflow.ActivityHandle[HealthChanges]:
        return workflow.start_activity_method(
            HealthWatcher.watch_health,
            watch,
            start_to_close_timeout=WATCH_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RetryPolicy(backoff_coefficient=1),
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            summary=f"check {sum(len(each.instances) for each in watch.agents.values())} instances",
        )

    @workflow.signal
    def configure(self, config: FleetConfig) -> None:
        """Take over a process's configuration; the present one changes nothing."""
        self._enter(self._state.configure(config, workflow.now()))

    @workflow.signal
    def report(self, reports: BreakerReports) -> None:
        """Merge what a process's breakers found out."""
        self._learn(self._state.report(reports, workflow.now()))

    @workflow.update
    def drain(self, order: InstanceOrder) -> AgentRecord:
        """Send no new calls to the instance, or to the whole agent."""
        return self._obey(FleetState.drain, order)

    @drain.validator
    def _may_drain(self, order: InstanceOrder) -> None:
        self._after(FleetState.drain, order)

    @workflow.update
    def resume(self, order: InstanceOrder) -> AgentRecord:
        """Send calls again to what was drained."""
        return self._obey(FleetState.resume, order)

    @resume.validator
    def _may_resume(self, order: InstanceOrder) -> None:
        self._after(FleetState.resume, order)

    @workflow.update
    def trip(self, order: InstanceOrder) -> AgentRecord:
        """Hold the breaker open until it is reset."""
        return self._obey(FleetState.trip, order)

    @trip.validator
    def _may_trip(self, order: InstanceOrder) -> None:
        self._after(FleetState.trip, order)

    @workflow.update
    def reset(self, order: InstanceOrder) -> AgentRecord:
        """Close the breaker, whatever holds it open or disabled."""
        return self._obey(FleetState.reset, order)

    @reset.validator
    def _may_reset(self, order: InstanceOrder) -> None:
        self._after(FleetState.reset, order)

    @workflow.update
    def disable_breaker(self, order: InstanceOrder) -> AgentRecord:
        """Let the breaker admit every call until it is reset."""
        return self._obey(FleetState.disable_breaker, order)

    @disable_breaker.validator
    def _may_disable_breaker(self, order: InstanceOrder) -> None:
        self._after(FleetState.disable_breaker, order)

    @workflow.update
    def set_limit(self, order: LimitOrder) -> AgentRecord:
        """Set the agent's limits over those of the configuration."""
        return self._obey(FleetState.set_limit, order)

    @set_limit.validator
    def _may_set_limit(self, order: LimitOrder) -> None:
        self._after(FleetState.set_limit, order)

    @workflow.update
    def add_instance(self, order: InstanceChange) -> AgentRecord:
        """Add an instance, or give a known one another weight."""
        return self._obey(FleetState.add_instance, order)

    @add_instance.validator
    def _may_add_instance(self, order: InstanceChange) -> None:
        self._after(FleetState.add_instance, order)

    @workflow.update
    def remove_instance(self, order: InstanceChange) -> AgentRecord:
        """Take an instance away."""
        return self._obey(FleetState.remove_instance, order)

    @remove_instance.validator
    def _may_remove_instance(self, order: InstanceChange) -> None:
        self._after(FleetState.remove_instance, order)

    @workflow.query
    def snapshot(self, known_version: int | None = None) -> FleetSnapshot:
        """All agents; without them when the asker knows this version."""
        return self._state.snapshot(known_version)

    @workflow.query
    def events(self, limit: int = EVENTS_KEPT) -> FleetEvents:
        """What happened, the latest first."""
        return FleetEvents(events=self._state.events[::-1][: max(0, limit)])

    def _after(
        self, action: Callable[[FleetState, AnyOrder, datetime], FleetState], order: AnyOrder
    ) -> FleetState:
        """The state after an order; raises what tells its sender why it is refused."""
        try:
            return action(self._state, order, workflow.now())
        except OrderRefused as error:
            raise ApplicationError(
                str(error), error.kind, type=REFUSED, non_retryable=True
            ) from None

    def _obey(
        self, action: Callable[[FleetState, AnyOrder, datetime], FleetState], order: AnyOrder
    ) -> AgentRecord:
        self._enter(self._after(action, order))
        return self._state.agents[order.agent]

    def _learn(self, after: FleetState) -> None:
        """Take over what was found out; agents that have recovered get their dead letters back."""
        back = recovered(self._state, after)
        self._enter(after)
        if self._state.config.redrive_on_recovery:
            for agent in back:
                if agent not in self._redriving:
                    self._redriving[agent] = asyncio.create_task(self._redrive(agent))

    async def _redrive(self, agent: str) -> None:
        try:
            await workflow.execute_activity(
                # By name: the fleet needs none of what that activity is made of.
                "redrive_agent",
                RedriveAgent(agent=agent, rate=self._state.config.redrive_rate),
                schedule_to_close_timeout=REDRIVE_TIMEOUT,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                summary=f"redrive the dead letters of {agent}",
            )
        except ActivityError as error:
            reason = str(error.cause or error)
            self._enter(
                self._state.noted(
                    FleetEvent(
                        at=workflow.now(), agent=agent, what=Happened.REDRIVE_FAILED, reason=reason
                    )
                )
            )
        finally:
            del self._redriving[agent]

    def _enter(self, after: FleetState) -> None:
        before, self._state = self._state, after
        if after is before:
            return
        self._describe()
        news = _news(before, after)
        if after.config.events and news:
            telling = asyncio.create_task(tell(_told(news, after.version)))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        if not workflow.unsafe.is_replaying():
            for event in news:
                log.info("fleet_event", **event.model_dump(mode="json", exclude={"at"}))

    def _describe(self) -> None:
        """Let the Web UI show the fleet."""
        workflow.set_current_details(summary(self._state))


def _is_long() -> bool:
    info = workflow.info()
    return (
        info.is_continue_as_new_suggested()
        or info.get_current_history_length() >= MAX_HISTORY_EVENTS
    )


def _targets(watch: HealthWatch) -> object:
    """Whom a watch checks and how, whatever is known of them."""
    return {name: (each.check, set(each.instances)) for name, each in watch.agents.items()}


def _told(news: tuple[FleetEvent, ...], version: int) -> News:
    """The same for the broker; with the version their places make them differ."""
    return News(
        events=tuple(
            Event(
                type=EventType.AGENT_CHANGED,
                id=f"{EventType.AGENT_CHANGED}/{each.agent}/{version}/{place}",
                at=each.at,
                subject=each.agent,
                agent=each.agent,
                data=each.model_dump(mode="json"),
            )
            for place, each in enumerate(news)
        )
    )


def _news(before: FleetState, after: FleetState) -> tuple[FleetEvent, ...]:
    """The events of a change, at most as many as are kept."""
    known = before.events[-1] if before.events else None
    news: list[FleetEvent] = []
    for event in reversed(after.events):
        if event is known:
            break
        news.append(event)
    return tuple(reversed(news))
