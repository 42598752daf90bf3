"""The dead letters of items that ended in chunks, and so have no workflow of their own."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from orchestrator.batches import ItemOutcome, item_id
    from orchestrator.engine.record import MEMO_CHOSEN_BY, MEMO_CREATED_AT, MEMO_TRACE_ID
    from orchestrator.models import Attempt, Plan, Run, Task
    from orchestrator.traces import trace_id_in
    from workflows.dead_letter import bury_as

BURIED_AT_ONCE = 50


async def bury_items(
    batch_id: str, created_at: datetime, plan: Plan, buried: Sequence[tuple[ItemOutcome, Task]]
) -> None:
    """Start a dead letter for each, some at a time."""
    for begin in range(0, len(buried), BURIED_AT_ONCE):
        some = buried[begin : begin + BURIED_AT_ONCE]
        await asyncio.gather(*(_bury(batch_id, created_at, plan, *each) for each in some))


def memo_of_item(task: Task, plan: Plan, created_at: datetime) -> dict[str, Any]:
    """What the workflow of an item carries beside its input, as any task's does."""
    memo = {MEMO_CREATED_AT: created_at.isoformat(), MEMO_CHOSEN_BY: plan.chosen_by}
    trace_id = trace_id_in(task.traceparent)
    return memo | {MEMO_TRACE_ID: trace_id} if trace_id else memo


async def _bury(
    batch_id: str, created_at: datetime, plan: Plan, outcome: ItemOutcome, task: Task
) -> None:
    attempt = Attempt(
        attempt=outcome.attempt or 0,
        agent=plan.agent,
        instance=outcome.instance,
        outcome=outcome.error_type or "",
        seconds=outcome.seconds or 0,
        status=outcome.status,
        error=outcome.error,
    )
    run = Run(
        error=outcome.error or "",
        error_type=outcome.error_type or "",
        attempts=outcome.attempt or 0,
        ended_at=outcome.at,
        attempt_history=(attempt,) if outcome.attempt else (),
    )
    memo = memo_of_item(task, plan, created_at)
    await bury_as(item_id(batch_id, outcome.position), task, plan, run, created_at, memo)
