"""How far a batch has come, as the Web UI and GET /batches show it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from orchestrator.batches import BatchTally
    from workflows import patches

TOLD_AFTER = timedelta(seconds=5)
"""What has ended shows in GET /batches after so long, or once it is a hundredth of all."""
TOLD_SOON_AFTER = timedelta(seconds=1)
"""The same of coalesced tasks, which hold places in the bounded queue until it shows."""


@dataclass(frozen=True)
class Shown:
    """What GET /batches shows, since when."""

    tally: BatchTally
    at: datetime

    def is_due(self, tally: BatchTally, *, ended: bool, recorded: bool, hurries: bool) -> bool:
        """Whether what is known now is to show.

        Args:
            tally: what is known.
            ended: this run of the batch is over.
            recorded: a chunk has recorded outcomes.
            hurries: without waiting until it is worth an event.
        """
        news = self.tally.pending - tally.pending
        if not news:
            return False
        since = workflow.now() - self.at
        if hurries:
            return ended or news >= max(1, tally.total // 100) or since > TOLD_AFTER
        return since > TOLD_AFTER if ended else _is_due(since, recorded=recorded)


def details(tally: BatchTally, place: str) -> str:
    """For the Web UI; ``place`` is which part of the batch it is, if there are several."""
    return (
        f"**{tally.total - tally.pending:,} of {tally.total:,}** have ended: "
        f"{tally.completed:,} completed, {tally.failed:,} failed, "
        f"{tally.cancelled:,} cancelled"
    ) + (f"; {place}" if place else "")


def _is_due(since: timedelta, *, recorded: bool) -> bool:
    """Whether what became of coalesced tasks is to show, be it by a chunk or by a record."""
    if since <= TOLD_SOON_AFTER:
        return False
    was_due = since > TOLD_AFTER and not recorded
    return workflow.patched(patches.COALESCED_TOLD_SOON) or was_due
