"""Batches and the bookkeeping of their items."""

from datetime import UTC, datetime
from typing import Any

from orchestrator.batches import Batch, BatchPlan, Unfinished
from orchestrator.models import Progress
from tests.support.plans import plan
from workflows.batch_items import Items

BATCH_ID = "nightly"
CREATED_AT = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


def text(position: int) -> str:
    """An item that tells its place."""
    return f'{{"pattern":"read","payload":{{"n":{position}}}}}'


def batch(*chosen: int, plans: tuple[BatchPlan, ...] = (), **fields: Any) -> Batch:
    """An item for each plan that is named by its number."""
    return Batch(
        plans=plans or (BatchPlan(plan=plan()), BatchPlan(plan=plan(priority=5))),
        items=tuple(text(position) for position in range(len(chosen))),
        chosen=chosen,
        **fields,
    )


def items_of(given: Batch) -> Items:
    """The bookkeeping of it."""
    return Items(given, BATCH_ID, CREATED_AT)


def unfinished(position: int, pause: float = 1.5) -> Unfinished:
    """An item that was tried once."""
    return Unfinished(position=position, progress=Progress(sent=1, made=1), pause=pause)


def alone() -> BatchPlan:
    """A plan whose items go alone."""
    return BatchPlan(plan=plan(), alone=True)
