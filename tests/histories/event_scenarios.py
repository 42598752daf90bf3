"""The courses of what is told to the broker, in the terms of tests.histories.scenarios."""

from typing import Any

from orchestrator.batches import BATCH_WORKFLOW
from orchestrator.messaging.events import News
from orchestrator.models import Task
from tests.histories.batch_scenarios import batch
from tests.histories.callback_scenarios import cancel_when_called
from tests.support.agents import Reply
from tests.support.plans import PAYLOAD, plan, retry

TOLD = plan(retry=retry(initial_seconds=0.05, max_attempts=2), dead_letter=True, events=True)
TASK = Task(pattern="read_pdf", payload=PAYLOAD, plan=TOLD)


class Confirming:
    """A broker that confirms all it is told."""

    async def publish(self, news: News) -> None:
        """Take it."""

    async def close(self) -> None:
        """There is nothing to close."""


COURSES: dict[str, dict[str, Any]] = {
    "completed_with_events": {"given": TASK, "replies": (Reply(status=503), Reply())},
    "failed_with_events": {"given": TASK, "replies": (Reply(status=500),)},
    "cancelled_with_events": {
        "given": TASK,
        "replies": (Reply(hang=True),),
        "play": cancel_when_called,
    },
    f"{BATCH_WORKFLOW}.completed_with_events": {"given": batch(4, TOLD, alone=1)},
    f"{BATCH_WORKFLOW}.failed_with_events": {
        "given": batch(2, TOLD),
        "replies": (Reply(status=500),),
    },
}
