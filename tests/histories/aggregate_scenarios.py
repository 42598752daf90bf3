"""The courses of aggregates, in the terms of tests.histories.scenarios."""

from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowHandle

from orchestrator.aggregate_status import AggregateStatus
from orchestrator.aggregates import (
    AGGREGATE_WORKFLOW,
    REDRIVE,
    Aggregation,
    AtLeast,
    Merge,
    OnMet,
    Simple,
)
from orchestrator.batches import Batch, BatchPlan
from orchestrator.models import TaskRequest
from orchestrator.routing import agent_queue
from tests.support.agents import Agent, Reply
from tests.support.plans import PAYLOAD, plan, retry
from tests.support.stack import eventually

Handle = WorkflowHandle[Any, Any]
ASKED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
REQUEST = TaskRequest(pattern="read_pdf", payload=PAYLOAD)
ONCE = plan(retry=retry(max_attempts=1), dead_letter=True)
FOR_NOBODY = plan(task_queue=agent_queue("nobody"))


def routed(*chosen: int) -> Batch:
    """Items for the agent (0), and for one that nobody calls (1)."""
    return Batch(
        plans=(BatchPlan(plan=ONCE), BatchPlan(plan=FOR_NOBODY)),
        items=tuple(REQUEST.model_dump_json(exclude_unset=True) for _ in chosen),
        chosen=chosen,
        created_at=ASKED,
    )


async def reached(handle: Handle, completed: int, failed: int) -> None:
    """Wait until so many of its tasks have ended."""

    async def far_enough() -> bool:
        status: AggregateStatus = await handle.query("status", result_type=AggregateStatus)
        return (completed, failed) == (status.completed, status.failed)

    await eventually(far_enough, what="so many ends")


async def redrive_and_cancel(handle: Handle, _: Agent) -> None:
    """What has failed succeeds the second time; nobody waits for the other."""
    await reached(handle, 0, 1)
    await handle.signal(REDRIVE)
    await reached(handle, 1, 0)
    await handle.cancel()


COURSES: dict[str, dict[str, Any]] = {
    f"{AGGREGATE_WORKFLOW}.joined_by_hand": {
        "given": Aggregation(
            task_ids=("nobody's",), tasks=(REQUEST, REQUEST), merge=Merge.DEEP_MERGE
        )
    },
    f"{AGGREGATE_WORKFLOW}.cancelled_rest": {
        "given": Aggregation(
            batch=routed(0, 1), join=Simple.ANY, on_met=OnMet.CANCEL_REST, created_at=ASKED
        )
    },
    f"{AGGREGATE_WORKFLOW}.failed_deadline": {
        "given": Aggregation(batch=routed(0, 1), join=AtLeast(at_least=2), deadline=1.5)
    },
    f"{AGGREGATE_WORKFLOW}.redriven_and_cancelled": {
        "given": Aggregation(batch=routed(0, 1), created_at=ASKED),
        "replies": (Reply(status=500), Reply()),
        "play": redrive_and_cancel,
    },
    f"{AGGREGATE_WORKFLOW}.failed_invalid_input": {"given": Aggregation()},
}
