"""The courses of batches, in the terms of tests.histories.scenarios."""

from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowHandle

from orchestrator.batches import (
    BATCH_WORKFLOW,
    CANCEL_ITEMS,
    RELEASE,
    Batch,
    BatchPlan,
    BatchTally,
    Unfinished,
    item_id,
)
from orchestrator.models import Plan, Progress, Route, TaskRequest
from orchestrator.routing import agent_queue
from tests.support.agents import Agent, Call, Reply
from tests.support.plans import plan, retry
from tests.support.stack import eventually

Handle = WorkflowHandle[Any, Any]
ACCEPTED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
TWICE = retry(initial_seconds=0.05, max_attempts=2)
ONCE = retry(initial_seconds=0.05, max_attempts=1)
NOWHERE = Route(agent="nobody", endpoint="/read", task_queue=agent_queue("nobody"))


def batch(count: int, planned: Plan | None = None, alone: int = 0, **fields: Any) -> Batch:
    """So many items, the last of which are tasks of their own, as the API starts them."""
    planned = planned or plan(retry=TWICE)
    return Batch(
        plans=(BatchPlan(plan=planned), BatchPlan(plan=planned, alone=True)),
        items=tuple(f'{{"pattern":"read_pdf","payload":{{"n":{n}}}}}' for n in range(count)),
        chosen=tuple(int(n >= count - alone) for n in range(count)),
        created_at=ACCEPTED,
        **fields,
    )


def coalesced(count: int) -> Batch:
    """So many single tasks, as the API starts them together."""
    given = batch(count)
    # The deadline counts from now on, and must be there when the history is recorded.
    plans = tuple(each.model_copy(update={"strict": True}) for each in given.plans)
    further = {"plans": plans, "coalesced": True, "created_at": datetime.now(UTC)}
    return given.model_copy(update=further)


async def cancel_when_called(handle: Handle, agent: Agent) -> None:
    """Cancel when some calls are in flight, one of them of a task of its own."""

    async def both() -> bool:
        own = agent.calls_of(item_id(handle.id, 3))
        return bool(own) and len(agent.calls) > len(own)

    await eventually(both, what="calls of both kinds")
    await handle.cancel()


async def cancel_some(handle: Handle, agent: Agent) -> None:
    """Cancel an item that is in flight; the others go on."""

    async def in_flight() -> list[Call]:
        return agent.calls_of(item_id(handle.id, 0))

    [call] = await eventually(in_flight, what="the call")
    await handle.signal(CANCEL_ITEMS, [0, 5, 7])
    await call.abandonment()
    agent.release()


async def cancel_some_while_queued(handle: Handle, _: Agent) -> None:
    """Cancel an item whose chunk waits in its queue, and then all."""
    chunks = 0
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("activity_task_scheduled_event_attributes"):
            chunks += 1
            if chunks > 1:
                break
            await handle.signal(CANCEL_ITEMS, [1])
    await handle.cancel()


async def release(handle: Handle, _: Agent) -> None:
    """What the first part does."""
    await handle.signal(RELEASE)


TRIED = Unfinished(position=4, progress=Progress(sent=1, made=1), pause=0.05)

_COURSES: dict[str, dict[str, Any]] = {
    "completed": {"given": batch(6, alone=1)},
    "completed_coalesced": {"given": coalesced(3)},
    "completed_coalesced_after_retries": {
        "given": coalesced(2),
        "replies": (Reply(status=503), Reply()),
    },
    "completed_after_retries": {"given": batch(4), "replies": (Reply(status=503), Reply())},
    "completed_after_fallback_for_nobody": {
        "given": batch(
            3,
            plan(
                **dict(NOWHERE),
                fallbacks=(Route.model_validate(dict(plan())),),
            ),
        )
    },
    "completed_by_hand": {
        "given": Batch(
            tasks=tuple(TaskRequest(pattern="read_pdf", payload={"n": n}) for n in range(3))
        )
    },
    "completed_in_part": {"given": batch(3, first=5, part=1, starts=(0, 5)), "play": release},
    "completed_with_parts": {"given": batch(3, starts=(0, 3))},
    "carried_on": {
        "given": batch(
            3,
            positions=(2, 4, 9),
            unfinished=(TRIED,),
            tally=BatchTally(total=10, completed=6, failed=1),
        )
    },
    "failed_into_dead_letters": {
        "given": batch(3, plan(retry=ONCE, dead_letter=True)),
        "replies": (Reply(status=500),),
    },
    "cancelled": {
        "given": batch(4, alone=1),
        "replies": (Reply(hang=True),),
        "play": cancel_when_called,
    },
    "cancelled_some": {
        "given": batch(3, positions=(0, 3, 6)),
        "replies": (Reply(hang=True),),
        "play": cancel_some,
    },
    "cancelled_some_while_queued": {
        "given": batch(3, plan(**dict(NOWHERE))),
        "play": cancel_some_while_queued,
    },
    "failed_invalid_input": {"given": Batch()},
}
COURSES = {f"{BATCH_WORKFLOW}.{name}": course for name, course in _COURSES.items()}
