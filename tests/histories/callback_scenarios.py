"""The courses of callbacks, in the terms of tests.histories.scenarios."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowHandle

from orchestrator.addresses import ReceiverPolicy
from orchestrator.callbacks import CALLBACK_WORKFLOW, Callback
from orchestrator.models import Task
from orchestrator.receivers import Receivers
from orchestrator.transports.webhooks import WebhookAnswer, Webhooks
from tests.histories.batch_scenarios import batch
from tests.support.agents import Agent, Reply
from tests.support.plans import PAYLOAD, plan, retry
from tests.support.stack import eventually

Handle = WorkflowHandle[Any, Any]
DELAYS = (0.05,)
ENDED = datetime(2026, 1, 15, 10, 31, tzinfo=UTC)
URL = "https://receiver.example/200"
ORDER = {"reason": "it is mended", "by": "ops"}


class Scripted(Webhooks):
    """Receivers that answer as their URL says: /500,200 first 500, then 200."""

    def __init__(self) -> None:
        super().__init__(Receivers(ReceiverPolicy()), 1)
        self._sent = Counter[str]()

    async def send(
        self,
        url: str,
        body: bytes,  # noqa: ARG002 - nobody reads it
        headers: Mapping[str, str],
    ) -> WebhookAnswer:
        """The next answer; the last one repeats."""
        answers = url.rpartition("/")[2].split(",")
        name = headers["webhook-id"]
        self._sent[name] += 1
        return WebhookAnswer(int(answers[min(self._sent[name], len(answers)) - 1]))


def callback(answers: str) -> Callback:
    """One whose receiver answers like that."""
    return Callback(
        callback_id="a-task",
        url=f"https://receiver.example/{answers}",
        event="task.completed",
        at=ENDED,
        data={"task_id": "a-task", "status": "completed", "result": {"pages": 3}},
    )


def once_dead(order: str) -> dict[str, Any]:
    """Send an order when it is dead."""

    async def play(handle: Handle, _: Agent) -> None:
        async def dead() -> bool:
            return "failure" in await (await handle.describe()).memo()

        await eventually(dead)
        await handle.execute_update(order, ORDER)

    return {"play": play}


def task(**fields: Any) -> Task:
    """One with a receiver."""
    planned = plan(retry=retry(max_attempts=1), dead_letter=True)
    return Task(pattern="read_pdf", payload=PAYLOAD, plan=planned, callback_url=URL, **fields)


def called_back(given: Any) -> Any:
    """The same batch with a receiver for each item."""
    items = tuple(f'{each[:-1]},"callback_url":"{URL}"}}' for each in given.items)
    return given.model_copy(update={"items": items})


async def cancel_when_called(handle: Handle, agent: Agent) -> None:
    """Cancel with a call in flight."""
    await agent.called()
    await handle.cancel()


COURSES: dict[str, dict[str, Any]] = {
    f"{CALLBACK_WORKFLOW}.delivered": {"given": callback("200")},
    f"{CALLBACK_WORKFLOW}.delivered_after_retry": {"given": callback("500,200")},
    f"{CALLBACK_WORKFLOW}.redelivered": {
        "given": callback("500,500,200"),
        **once_dead("redeliver"),
    },
    f"{CALLBACK_WORKFLOW}.discarded": {"given": callback("410"), **once_dead("discard")},
    "completed_with_callback": {"given": task()},
    "failed_with_callback": {"given": task(), "replies": (Reply(status=500),)},
    "cancelled_with_callback": {
        "given": task(),
        "replies": (Reply(hang=True),),
        "play": cancel_when_called,
    },
    "TaskBatch.completed_with_callbacks": {"given": called_back(batch(4, alone=1))},
    "TaskBatch.cancelled_with_callbacks": {
        "given": called_back(batch(4)),
        "replies": (Reply(hang=True),),
        "play": cancel_when_called,
    },
}
