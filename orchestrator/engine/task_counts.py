"""How many tasks the engine keeps, counted when somebody wants to know."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from temporalio.client import Client

from orchestrator.dead_letters import DeadLetterFilter
from orchestrator.engine.batch_lists import OpenBatches
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.tasks import Tasks
from orchestrator.models import TaskState
from orchestrator.telemetry.logging import get_logger

FRESH_SECONDS = 1.0
"""So old counts are at least before newer ones are made."""
OLD_SECONDS = 5.0
"""Counts that are older are waited for; younger ones are given while newer ones are made."""
SHARE = 0.05
"""Of its time in which a process has the engine count.

For each count the engine goes through all that it keeps, and the embedded one does nothing else
meanwhile: seen were 15 ms of its CPU for 4,000 tasks.
"""
LONGEST_PAUSE_SECONDS = 14.0
"""After a count, however long it took: Prometheus comes every 15 seconds."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Counts:
    """Tasks by state, all open ones as running, and how many of the failed are dead letters.

    ``as_of`` is when the engine was asked, by the monotonic clock.
    """

    tasks: Mapping[TaskState, int] = field(default_factory=lambda: dict.fromkeys(TaskState, 0))
    dead_letters: int = 0
    as_of: float = float("-inf")

    @property
    def is_known(self) -> bool:
        """Whether they were ever made."""
        return self.as_of > float("-inf")

    def active(self, batches: OpenBatches) -> int:
        """Tasks that have not ended; an item that is a task of its own counts as both."""
        return self.tasks[TaskState.RUNNING] + self.tasks[TaskState.QUEUED] + batches.pending


class TaskCounts:
    """Counts when somebody asks: at most once a second, and the more seldom the longer it takes."""

    def __init__(self, client: Client, tasks: Tasks, timeout: float) -> None:
        self._tasks = tasks
        self._dead_letters = DeadLetters(client, timeout)
        self._last = Counts()
        self._due = float("-inf")
        self._counting: asyncio.Task[None] | None = None
        self._told_failure = False

    @property
    def last(self) -> Counts:
        """Those that were made last; the engine is not asked."""
        return self._last

    async def get(self, patience: float) -> Counts:
        """The counts, at most some seconds old if they can be made in ``patience`` seconds.

        Else those that were made last; they are not waited for while they are young.
        """
        now = time.monotonic()
        if self._counting is None and now >= self._due:
            self._counting = asyncio.create_task(self._count(now))
        if self._counting is not None and now - self._last.as_of > OLD_SECONDS:
            await asyncio.wait({self._counting}, timeout=patience)
        return self._last

    async def _count(self, now: float) -> None:
        try:
            tasks = await self._tasks.counts()
            dead_letters = await self._dead_letters.count(DeadLetterFilter())
        except Exception as error:  # noqa: BLE001 - whoever reads them goes on with what is known
            if not self._told_failure:
                log.warning("tasks_not_counted", error=f"{type(error).__name__}: {error}")
            self._told_failure = True
        else:
            if self._told_failure:
                log.info("tasks_counted")
            self._last, self._told_failure = Counts(tasks, dead_letters, now), False
        finally:
            took = time.monotonic() - now
            pause = min(LONGEST_PAUSE_SECONDS, max(FRESH_SECONDS, took / SHARE))
            self._due, self._counting = time.monotonic() + pause, None
