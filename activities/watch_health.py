"""Whether the agents' instances answer: checks that go on until one of them has news."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from orchestrator.endpoints import joined
from orchestrator.fleet.records import (
    HealthChange,
    HealthChanges,
    HealthCheckSpec,
    HealthState,
    HealthWatch,
)

RECHECK_SECONDS = 5.0
"""An instance that is unhealthy, or seems to change, is asked again at least this often."""
ROUND_SECONDS = 600.0
BEAT_SECONDS = 4.0
"""A watch goes on for minutes: two signs of life within its heartbeat timeout of ten seconds.

With the next one it hears that another watch has taken its place; until then both check.
"""
GATHER_SECONDS = 0.2
"""What else is found so soon after a change travels with it."""
CHECKS_AT_ONCE = 50
JITTER = 0.1
_FIRST_SPREAD_SECONDS = 0.2

Probe = Callable[[str, float, Collection[int]], Awaitable[str | None]]
"""Asks at an address within so many seconds; None when it is well, else what is wrong."""


@dataclass
class Course:
    """The checks of one instance: what is known of it, and how many in a row say otherwise."""

    state: HealthState
    due_at: float
    contrary: int = 0

    def note(self, check: HealthCheckSpec, *, well: bool) -> bool:
        """Count one check; whether it has changed the state. The first one decides at once."""
        found = HealthState.HEALTHY if well else HealthState.UNHEALTHY
        if found is self.state:
            self.contrary = 0
            return False
        self.contrary += 1
        enough = check.healthy_threshold if well else check.unhealthy_threshold
        if self.state is not HealthState.UNKNOWN and self.contrary < enough:
            return False
        self.state, self.contrary = found, 0
        return True

    def pause(self, interval: float) -> float:
        """Seconds until the next check."""
        calm = self.state is HealthState.HEALTHY and not self.contrary
        return interval if calm else min(interval, RECHECK_SECONDS)


class HealthWatcher:
    """The activity with the way to check.

    It remembers the courses, so that the end of one watch puts off none of the next one's checks.
    """

    def __init__(self, probe: Probe, chance: Callable[[], float] = random.random) -> None:
        self._probe = probe
        self._chance = chance
        self._courses: dict[tuple[str, str], Course] = {}

    @activity.defn
    async def watch_health(self, watch: HealthWatch) -> HealthChanges:
        """Check until the state of some instance changes, or for ten minutes.

        Raises:
            ApplicationError: the worker stops; another one may go on at once.
        """
        found: dict[tuple[str, str], HealthChange] = {}
        news = asyncio.Event()

        def tell(change: HealthChange) -> None:
            found[change.agent, change.instance] = change
            news.set()

        checking = [asyncio.create_task(each) for each in self._checks(watch, tell)]
        try:
            stopping = await _until(news)
            if news.is_set():
                await asyncio.sleep(GATHER_SECONDS)
        finally:
            for each in checking:
                each.cancel()
            await asyncio.gather(*checking, return_exceptions=True)
        if stopping and not found:
            raise ApplicationError(
                "The worker that checked the agents is stopping",
                type="WorkerStopping",
                next_retry_delay=timedelta(milliseconds=1),
            )
        return HealthChanges(changes=tuple(found.values()))

    def _checks(
        self, watch: HealthWatch, tell: Callable[[HealthChange], None]
    ) -> list[Coroutine[None, None, None]]:
        """What checks each instance, for ever."""
        now = asyncio.get_running_loop().time()
        turn = asyncio.Semaphore(CHECKS_AT_ONCE)
        before, self._courses = self._courses, {}
        checks: list[Coroutine[None, None, None]] = []
        for agent, watched in watch.agents.items():
            for url, state in watched.instances.items():
                known = before.get((agent, url))
                if known and known.state is state and now < known.due_at + watched.check.interval:
                    # A copy: a watch that was cancelled may go on until it hears of it.
                    course = replace(known)
                else:
                    course = Course(state, now + self._chance() * _FIRST_SPREAD_SECONDS)
                self._courses[agent, url] = course
                checks.append(self._follow(agent, url, watched.check, course, turn, tell))
        return checks

    async def _follow(
        self,
        agent: str,
        url: str,
        check: HealthCheckSpec,
        course: Course,
        turn: asyncio.Semaphore,
        tell: Callable[[HealthChange], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(course.due_at - loop.time())
            async with turn:
                problem = await self._problem(url, check)
            changed = course.note(check, well=problem is None)
            spread = 1 + JITTER * (2 * self._chance() - 1)
            course.due_at = loop.time() + course.pause(check.interval) * spread
            if changed:
                tell(
                    HealthChange(
                        agent=agent, instance=url, state=course.state, reason=problem or ""
                    )
                )

    async def _problem(self, url: str, check: HealthCheckSpec) -> str | None:
        try:
            return await self._probe(joined(url, check.path), check.timeout, check.expected)
        except Exception as error:  # noqa: BLE001 - one broken check must not end all others
            return f"the check itself failed: {type(error).__name__}"


async def _until(news: asyncio.Event) -> bool:
    """Wait for news, or the end of the round, with signs of life; whether the worker stops."""
    loop = asyncio.get_running_loop()
    end = loop.time() + ROUND_SECONDS
    told = asyncio.create_task(news.wait())
    stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
    try:
        while loop.time() < end and not told.done() and not stopping.done():
            activity.heartbeat()
            await asyncio.wait(
                {told, stopping},
                timeout=BEAT_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
        return stopping.done()
    finally:
        told.cancel()
        stopping.cancel()
