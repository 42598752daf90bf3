"""The courses of dead letters, in the terms of tests.histories.scenarios."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from orchestrator.dead_letters import (
    BULK_WORKFLOW,
    DEAD_LETTER_WORKFLOW,
    BulkAction,
    BulkOrder,
    DeadLetterEntry,
    DeadLetterFilter,
)
from orchestrator.models import Run, Task
from tests.support.agents import Agent, Reply
from tests.support.plans import AGENT, PAYLOAD, plan, retry

Handle = WorkflowHandle[Any, Any]
ENDED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
ORDER = {"reason": "disk replaced", "by": "ops"}


def entry(pattern: str = "read_pdf", expires: float | None = None) -> DeadLetterEntry:
    """A task that failed for good."""
    return DeadLetterEntry(
        task=Task(pattern=pattern, payload=PAYLOAD),
        run=Run(error="all is lost", error_type="AgentFailed", attempts=4, ended_at=ENDED),
        memo={"fingerprint": "print"},
        created_at=ENDED,
        agent=AGENT,
        expires=expires,
    )


def update(name: str) -> Callable[[Handle, Agent], Awaitable[None]]:
    """Send an update."""

    async def play(handle: Handle, _: Agent) -> None:
        await handle.execute_update(name, ORDER)

    return play


async def redrive_by_signal(handle: Handle, _: Agent) -> None:
    """As the engine's batch operations do."""
    await handle.signal("redrive", ORDER)


async def discard_after_refusal(handle: Handle, _: Agent) -> None:
    """Its route is gone."""
    try:
        await handle.execute_update("redrive")
    except WorkflowUpdateFailedError:
        await handle.execute_update("discard")


COURSES: dict[str, dict[str, Any]] = {
    f"{DEAD_LETTER_WORKFLOW}.redriven": {"given": entry(), "play": update("redrive")},
    f"{DEAD_LETTER_WORKFLOW}.redriven_by_signal": {"given": entry(), "play": redrive_by_signal},
    f"{DEAD_LETTER_WORKFLOW}.discarded_after_refusal": {
        "given": entry(pattern="gone"),
        "play": discard_after_refusal,
    },
    f"{DEAD_LETTER_WORKFLOW}.expired": {"given": entry(expires=0.2)},
    f"{BULK_WORKFLOW}.completed": {
        "given": BulkOrder(
            action=BulkAction.REDRIVE, filter=DeadLetterFilter(tenant="nobody"), rate=10.0
        )
    },
    "failed_into_dead_letter": {
        "given": Task(
            pattern="read_pdf",
            payload=PAYLOAD,
            plan=plan(retry=retry(max_attempts=1), dead_letter=True),
        ),
        "replies": (Reply(status=500),),
    },
}
