"""The callbacks of a batch's items: started in the engine, some at a time, each once."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.heartbeats import signs_of_life
from orchestrator.batches import item_id
from orchestrator.callbacks import START_CALLBACKS, ItemCallbacks, ItemEnd, callback_of
from orchestrator.engine.batches import Batches
from orchestrator.engine.callbacks import Callbacks
from orchestrator.engine.tasks import Tasks
from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus

STARTS_AT_ONCE = 16
LOOKS = 5
"""So often an item's status is looked for; then the receiver is told of its end alone."""


class CallbackStarter:
    """The activity with what it needs: the engine's tasks, and its callbacks."""

    def __init__(self, tasks: Tasks, callbacks: Callbacks) -> None:
        self._tasks = tasks
        self._callbacks = callbacks

    @activity.defn(name=START_CALLBACKS)
    async def start_callbacks(self, items: ItemCallbacks) -> None:
        """Start a delivery for each; those that were started before are left as they are.

        Raises:
            EngineUnavailable: the engine did not answer.
            ApplicationError: the batch's record does not show an item's end yet.
        """
        async with signs_of_life():
            await self._start_all(items)

    async def _start_all(self, items: ItemCallbacks) -> None:
        known = await self._outcomes(items.batch_id, (each.position for each in items.ends))
        turn = asyncio.Semaphore(STARTS_AT_ONCE)

        async def start(end: ItemEnd) -> None:
            async with turn:
                status = known.get(end.position) or await self._status(items.batch_id, end)
                await self._callbacks.start(callback_of(end.url, status))

        async with asyncio.TaskGroup() as group:
            for each in items.ends:
                group.create_task(start(each))

    async def _outcomes(self, batch_id: str, positions: Iterable[int]) -> dict[int, TaskStatus]:
        """What the batch's record tells of them, which may be more than fits into one answer."""
        batches: Batches = self._tasks.batches
        left, known = sorted(positions), dict[int, TaskStatus]()
        while left:
            some = await batches.outcomes(batch_id, left)
            known |= some
            left = [each for each in left if some and each > max(some)]
        return known

    async def _status(self, batch_id: str, end: ItemEnd) -> TaskStatus:
        """Of an item that its batch has ended before the record says so, as by a cancellation."""
        status = await self._tasks.status(item_id(batch_id, end.position))
        if status.status.is_final:
            return status
        if end.state is not TaskState.CANCELLED and activity.info().attempt < LOOKS:
            raise ApplicationError(f"Item {end.position} has not ended in the batch's record yet")
        return TaskStatus(
            task_id=status.task_id,
            status=end.state,
            agent=status.agent,
            pattern=status.pattern,
            priority=status.priority,
            tenant=status.tenant,
            created_at=status.created_at,
            updated_at=datetime.now(UTC),
            batch_id=status.batch_id,
            chosen_by=status.chosen_by,
        )
