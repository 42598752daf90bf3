"""What a process knows of the fleet: looked at once a second, and told to who listens."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from orchestrator.engine.fleet import Fleet, FleetGone, Mark, Order
from orchestrator.errors import EngineUnavailable
from orchestrator.fleet.records import (
    AgentRecord,
    BreakerReport,
    BreakerReports,
    FleetConfig,
    FleetEvent,
    FleetSnapshot,
)
from orchestrator.fleet.state import FleetState
from orchestrator.resilience.breaker_policy import BreakerState, Transition
from orchestrator.resilience.pool import Pools
from orchestrator.telemetry.logging import get_logger

REFRESH_SECONDS = 1.0
ASK_SECONDS = 5.0
"""A fleet to which nothing happens is asked itself this often, to know that it is run.

What the engine tells of it each second costs a fifth of the fleet's own answer, and no worker.
"""
FIRST_LOOK_SECONDS = 3.0
"""How long a process that starts waits for the fleet; then it goes by its configuration."""
GATHER_SECONDS = 0.1
"""What breakers do so soon after a report is told together."""
_TOLD = frozenset({BreakerState.OPEN, BreakerState.CLOSED})

log = get_logger(__name__)

Listener = Callable[[FleetSnapshot, datetime], None]
"""Called with all agents of the fleet, and the time of day."""


class FleetView:
    """What this process knows of the fleet, at most a second old while engine and fleet answer.

    It tells the listeners each change, tells the fleet what the process's own breakers find out,
    and starts the fleet if it is gone. While the fleet does not answer, what is known holds, and
    what is to be told is kept. ``clock`` is that of the pools' breakers, and of the looks.
    """

    def __init__(
        self,
        fleet: Fleet,
        config: FleetConfig,
        process: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._config = config
        self._is_told = False
        self._process = process
        self._clock = clock
        now = datetime.now(UTC)
        self._agents = FleetState().configure(config, now).agents
        self._version: int | None = None
        self._mark: Mark | None = None
        self._ask_at = float("-inf")
        self._listeners: list[Listener] = []
        self._refreshing = asyncio.Lock()
        self._pools: Pools | None = None
        self._untold: dict[tuple[str, str], Transition] = {}
        self._news = asyncio.Event()
        self._told_unreachable = False
        self.known = asyncio.Event()
        """Set once the fleet has answered."""
        self.reachable = False
        """Whether the fleet answered when it was last asked."""
        self.as_of: datetime | None = None
        """When what is known of it was last seen to hold."""

    @property
    def agents(self) -> dict[str, AgentRecord]:
        """All agents by name; by the configuration as long as the fleet has not answered."""
        return self._agents

    @property
    def version(self) -> int:
        """Of what is known; 0 as long as the fleet has not answered."""
        return self._version or 0

    def listen(self, listener: Listener) -> None:
        """Have the listener called with each new snapshot."""
        self._listeners.append(listener)

    def watch(self, pools: Pools) -> None:
        """Keep the pools by the fleet's word, and the fleet by that of their breakers."""
        self._pools = pools
        pools.on_transition = self._note
        self.listen(pools.sync)

    def configure(self, config: FleetConfig) -> None:
        """Go by another configuration, and have the fleet do so soon after."""
        self._config = config
        self._is_told = False

    async def begin(self, seconds: float) -> None:
        """Start the fleet if need be, and wait so long at most for its first answer.

        Who makes calls, or admits tasks, before that would go by the configuration alone, past
        what operators ordered and breakers found out.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._start()
                await self.refresh()

    async def run(self) -> None:
        """Keep the view until cancelled."""
        telling = asyncio.create_task(self._tell_for_ever())
        try:
            while True:
                if not self._is_told:
                    await self._start()
                await self.refresh()
                await asyncio.sleep(REFRESH_SECONDS)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def refresh(self) -> None:
        """Look at the fleet now; afterwards all that it had been told before is known here."""
        async with self._refreshing:
            try:
                await self._look()
            except FleetGone as error:
                self._missed(error)
                await self._start()
            except EngineUnavailable as error:
                self._missed(error)

    async def order(self, name: str, order: Order) -> AgentRecord:
        """As Fleet.order; afterwards this process acts by it."""
        try:
            record = await self._fleet.order(name, order)
        except FleetGone as error:
            raise EngineUnavailable(str(error)) from None
        await self.refresh()
        return record

    async def events(self, limit: int) -> tuple[FleetEvent, ...]:
        """As Fleet.events, without any when the fleet does not answer."""
        try:
            return await self._fleet.events(limit)
        except (EngineUnavailable, FleetGone) as error:
            self._missed(error)
            return ()

    async def _start(self) -> None:
        # Without an engine there is nobody to tell; the next look tries again.
        config = self._config
        with suppress(EngineUnavailable, FleetGone):
            await self._fleet.ensure(config)
            self._is_told = config is self._config

    async def _look(self) -> None:
        """Ask the fleet, unless it is where it was and has answered there not long ago."""
        at, mark = datetime.now(UTC), await self._fleet.mark()
        if mark != self._mark or self._clock() >= self._ask_at:
            self._heard(await self._fleet.snapshot(self._version), at)
            self._mark, self._ask_at = mark, self._clock() + ASK_SECONDS
        self.as_of = at
        if self._untold:
            self._news.set()

    def _missed(self, error: Exception) -> None:
        self.reachable, self._mark = False, None
        if not self._told_unreachable:
            self._told_unreachable = True
            log.warning("fleet_unreachable", error=str(error), as_of=self.as_of)

    def _heard(self, snapshot: FleetSnapshot, at: datetime) -> None:
        self.reachable = True
        self.known.set()
        if self._told_unreachable:
            self._told_unreachable = False
            log.info("fleet_reachable")
        if snapshot.agents is None:
            return
        self._version, self._agents = snapshot.version, snapshot.agents
        for listener in self._listeners:
            try:
                listener(snapshot, at)
            except Exception:
                log.exception("fleet_listener_failed")

    def _note(self, agent: str, instance: str, transition: Transition) -> None:
        """Remember a breaker's change that the other processes should hear of."""
        if transition.own and transition.after in _TOLD:
            self._untold[agent, instance] = transition
            self._news.set()

    async def _tell_for_ever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._tell()
            await asyncio.sleep(GATHER_SECONDS)

    async def _tell(self) -> None:
        """Tell all that is to be told; what could not be told waits for the next look."""
        told, self._untold = self._untold, {}
        reports = tuple(self._report(*of, transition) for of, transition in told.items())
        try:
            await self._fleet.report(BreakerReports(process=self._process, reports=reports))
        except (EngineUnavailable, FleetGone):
            self._untold = {**told, **self._untold}

    def _report(self, agent: str, instance: str, transition: Transition) -> BreakerReport:
        return BreakerReport(
            agent=agent,
            instance=instance,
            state=transition.after,
            age_seconds=self._clock() - transition.at,
            remaining_seconds=self._remaining(agent, instance),
            reason=transition.reason,
        )

    def _remaining(self, agent: str, instance: str) -> float:
        """Seconds that the instance's breaker stays open from now; 0 if it does not."""
        for member in self._pools.of_agent(agent).instances if self._pools else ():
            if member.url == instance:
                return max(0.0, (member.breaker.retry_at or 0.0) - self._clock())
        return 0.0
