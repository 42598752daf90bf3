"""Tell the broker what happens to the items of a batch, many at a time."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic_core import from_json
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from orchestrator.batches import BatchPlan, item_id
    from orchestrator.messaging.events import ENDS, Event, EventType, News
    from orchestrator.models import TaskState
    from workflows.batch_items import Ended, Items
    from workflows.telling import tell

TOLD_AT_ONCE = 500
"""Events of one local activity."""


class ItemNews:
    """The news of one part of a batch."""

    def __init__(self, batch_id: str, traceparent: str | None) -> None:
        self._batch_id = batch_id
        self._traceparent = traceparent

    async def queued(self, items: Items, at: datetime) -> None:
        """All items have been accepted."""
        await _tell(
            self._event(EventType.QUEUED, position, text, entry, at, {})
            for position, text, entry in items.waiting
            if entry.plan.events
        )

    async def ended(self, items: Items) -> None:
        """Those that have ended since the last time, if there are any."""
        if not items.ended:
            return
        found, items.ended = items.ended, []
        now = workflow.now()
        await _tell(event for each in found for event in self._ends(each, now))

    def _ends(self, ended: Ended, now: datetime) -> Iterable[Event]:
        data: dict[str, Any] = {"status": ended.state.value}
        at, kinds = now, [ENDS[ended.state]]
        if outcome := ended.outcome:
            at = outcome.at
            named = {
                "error": outcome.error,
                "error_type": outcome.error_type,
                "attempts": outcome.attempt,
                "execution_time": outcome.seconds,
            }
            data |= {name: value for name, value in named.items() if value is not None}
            if ended.state is TaskState.FAILED and outcome.dead_letter:
                data["dead_letter"] = True
                kinds.append(EventType.DEAD_LETTERED)
        for kind in kinds:
            yield self._event(kind, ended.position, ended.text, ended.entry, at, data)

    def _event(
        self,
        kind: EventType,
        position: int,
        text: str,
        entry: BatchPlan,
        at: datetime,
        data: dict[str, Any],
    ) -> Event:
        asked = from_json(text)
        told = {"pattern": asked.get("pattern"), "tenant": entry.tenant}
        return Event.of_task(
            kind,
            item_id(self._batch_id, position),
            self._batch_id,
            entry.plan.agent,
            at,
            {**told, "priority": entry.plan.priority, **data, "batch_id": self._batch_id},
            traceparent=self._traceparent or asked.get("traceparent"),
        )


async def _tell(events: Iterable[Event]) -> None:
    """Tell of all, though somebody cancels meanwhile."""
    found, cut_off = tuple(events), False
    for begin in range(0, len(found), TOLD_AT_ONCE):
        try:
            await tell(News(events=found[begin : begin + TOLD_AT_ONCE]))
        except asyncio.CancelledError:
            cut_off = True
    if cut_off:
        raise asyncio.CancelledError
