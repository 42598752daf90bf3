"""What the engine tells of workflows that have ended."""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client, WorkflowExecution

from bench.subject import Outcome, Submissions

_BUSY_SECONDS = 30


@dataclass
class Readings:
    """The workflows of some types, in one engine.

    Args:
        client: of the engine.
        types: the workflow types.
    """

    client: Client
    types: tuple[str, ...]

    async def ended(self) -> int:
        """How many have completed."""
        return await self._count("ExecutionStatus = 'Completed'")

    async def open(self) -> int:
        """How many have not ended."""
        return await self._count("ExecutionStatus = 'Running'")

    async def _count(self, condition: str) -> int:
        return (await self.client.count_workflows(f"{self._of_types()} AND {condition}")).count

    def _of_types(self) -> str:
        names = ", ".join(f"'{name}'" for name in self.types)
        return f"WorkflowType IN ({names})"

    async def latest(self, since: float) -> list[WorkflowExecution]:
        """Those that have started since, by the wall clock."""
        found = self.client.list_workflows(self._of_types(), page_size=1000)
        return [each async for each in found if each.start_time.timestamp() >= since]

    async def outcome(self, submissions: Submissions) -> Outcome:
        """What the engine keeps of workflows of which each was one submission."""
        runs = await self.latest(min(submissions.began.values()) - 1)
        own = [run for run in runs if run.id in submissions.began]
        ends = {run.id: run.close_time.timestamp() for run in own if run.close_time is not None}
        if len(ends) != len(submissions.began):
            raise ValueError(f"{len(ends)} of {len(submissions.began)} workflows have ended")
        return submissions.outcome(ends, *history_of(own))


def history_of(runs: list[WorkflowExecution]) -> tuple[int, int]:
    """Events and bytes of their histories, in all."""
    infos = [run.raw_info for run in runs]
    return sum(i.history_length for i in infos), sum(i.history_size_bytes for i in infos)


def database_size(file: Path) -> int:
    """Bytes of the engine's database, with what is still in its journal but without that itself."""
    with contextlib.closing(sqlite3.connect(file, timeout=_BUSY_SECONDS)) as database:
        pages, size = (
            int(database.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "page_size")
        )
    return pages * size
