"""What the engine tells of workflows that have ended."""

from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client, WorkflowExecution

from bench.subject import Outcome, Submissions


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


def size_of(directory: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
