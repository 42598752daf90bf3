"""Tell the broker what happens to a task, where that is wanted.

It is a local activity: beside the task's own commands it costs one event of the history, and where
nobody wants events, or a reply, it costs nothing.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities.publish_events import EventPublisher
    from orchestrator.callbacks import data_of
    from orchestrator.errors import PayloadTooLarge
    from orchestrator.messaging.events import ENDS, UNTOLD, Answer, Event, EventType, News
    from orchestrator.models import Plan, Task, TaskState
    from orchestrator.statuses import TaskStatus
    from orchestrator.telemetry.logging import get_logger
    from workflows import options

log = get_logger(__name__)


async def tell(news: News) -> None:
    """Send it, and outlive a cancellation meanwhile: what has happened has happened.

    Nor does it change by news that cannot be sent: those are lost, and logged.
    """
    if not news.events and not news.answers:
        return
    telling = asyncio.create_task(_send(news))
    cut_off = False
    while not telling.done():
        try:
            await asyncio.shield(telling)
        except asyncio.CancelledError:
            cut_off = True
    with suppress(asyncio.CancelledError):
        telling.result()
    if cut_off:
        raise asyncio.CancelledError


async def _send(news: News) -> None:
    try:
        await workflow.execute_local_activity_method(
            EventPublisher.tell,
            news,
            start_to_close_timeout=options.TELL_TIMEOUT,
            retry_policy=options.PATIENT,
        )
    except (FailureError, PayloadTooLarge) as error:
        if not workflow.unsafe.is_replaying():
            types = [each.type for each in news.events]
            log.warning("events_lost", types=types, replies=len(news.answers), reason=str(error))


def queued(task: Task, plan: Plan) -> News:
    """The task was accepted; an item of a batch was told of by that."""
    if not plan.events or (task.batch and not task.earlier_runs):
        return News()
    data = {"pattern": task.pattern, "tenant": task.tenant, "priority": plan.priority}
    return News(events=(_event(EventType.QUEUED, task, plan.agent, data),))


def ended(task: Task, plan: Plan, status: TaskStatus) -> News:
    """The task has ended so: its event, that of its dead letter, and who waits for the result."""
    agent = status.agent or plan.agent
    whole = data_of(status)
    told = {name: value for name, value in whole.items() if name not in UNTOLD}
    kinds = [ENDS[status.status]]
    if status.status is TaskState.FAILED and status.dead_letter:
        kinds.append(EventType.DEAD_LETTERED)
    return News(
        events=tuple(_event(kind, task, agent, told) for kind in kinds) if plan.events else (),
        answers=(Answer(reply=task.reply, id=_answer_id(), body=whole),) if task.reply else (),
    )


def _answer_id() -> str:
    info = workflow.info()
    return f"reply/{info.workflow_id}/{info.run_id}"


def _event(kind: EventType, task: Task, agent: str, data: Mapping[str, Any]) -> Event:
    info = workflow.info()
    further = {"batch_id": task.batch} if task.batch else {}
    return Event.of_task(
        kind,
        info.workflow_id,
        info.run_id,
        agent,
        workflow.now(),
        {**data, **further},
        traceparent=task.traceparent,
    )
