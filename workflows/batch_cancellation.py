"""Cancelling single items of a batch while they are under way, be it in a chunk or alone."""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    RetryState,
    TimeoutError,  # noqa: A004 - the engine's, which is the one that workflows meet
    TimeoutType,
)

with workflow.unsafe.imports_passed_through():
    from orchestrator.batches import ChunkReport, Unfinished
    from orchestrator.models import Plan, Progress
    from workflows.batch_items import Items


class UnderWay:
    """What is under way of a batch, as far as items of it may be cancelled."""

    def __init__(self) -> None:
        self.chunks_ask = False
        """Chunks are to ask which of their items are unwanted: some were cancelled before."""
        self._silent: dict[workflow.ActivityHandle[ChunkReport], tuple[int, ...]] = {}
        """Chunks that do not ask, with their positions."""
        self._alone: dict[int, asyncio.Task[Any] | None] = {}

    async def report(
        self, handle: workflow.ActivityHandle[ChunkReport], positions: tuple[int, ...]
    ) -> ChunkReport:
        """What a chunk tells at its end."""
        if not self.chunks_ask:
            self._silent[handle] = positions
        try:
            return await handle
        finally:
            self._silent.pop(handle, None)

    def goes_alone(self, position: int) -> None:
        """The current coroutine is to be cancelled with the item."""
        self._alone[position] = asyncio.current_task()

    def has_ended(self, position: int) -> None:
        """An item that went alone."""
        self._alone.pop(position, None)

    async def cancel(self, items: Items, positions: Collection[int]) -> None:
        """Have what is under way of these items cut off.

        A chunk is told once, and from then on asks by itself. One that waits in its queue is taken
        out of it by that: the engine knows no other way to reach it.
        """
        try:
            # What ends at this very moment is left to end, or its report would be lost.
            await workflow.wait_condition(lambda: True)
        except asyncio.CancelledError:
            return  # and so is the whole batch
        for position in positions:
            if task := self._alone.get(position):
                task.cancel()
        for handle, held in tuple(self._silent.items()):
            if items.unwanted_among(held):
                del self._silent[handle]
                self.chunks_ask = True
                handle.cancel()


def told_before(plan: Plan, positions: Collection[int], error: ActivityError) -> ChunkReport | None:
    """What stands for the report of a chunk that was lost when it was to be given to nobody else.

    That is so when some of it was to be cut off: then the rest waits anew. And when its time was
    up: then each of the rest goes on alone, to end by itself.

    Returns:
        None where it was lost for another reason.
    """
    cause = error.cause
    cut_off = error.retry_state is RetryState.CANCEL_REQUESTED
    late = isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_CLOSE
    if not (cut_off or late):
        return None
    details = cause.last_heartbeat_details if isinstance(cause, TimeoutError) else ()
    told = ChunkReport.model_validate(details[0]) if details else ChunkReport(agent=plan.agent)
    rest = tuple(position for position in positions if position not in told.known)
    if cut_off:
        return told.model_copy(update={"left": rest})
    return told.model_copy(update={"unfinished": (*told.unfinished, *untried(rest))})


def untried(positions: Iterable[int]) -> Iterator[Unfinished]:
    """Items that go on alone before anything was tried for them."""
    return (Unfinished(position=position, progress=Progress()) for position in positions)
