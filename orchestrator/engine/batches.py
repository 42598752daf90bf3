"""Batches in the engine: follow, read the results, cancel."""

import asyncio
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.batches import CANCEL_ITEMS, BatchStatus, item_id
from orchestrator.engine.batch_counts import BatchCounts
from orchestrator.engine.batch_items import BatchItems, OwnStatus, Seen
from orchestrator.engine.batch_lists import BatchLists
from orchestrator.engine.batch_parts import BatchParts, Part
from orchestrator.engine.batch_records import BatchRecords
from orchestrator.engine.batch_starts import BatchStarts
from orchestrator.engine.batch_watches import BatchWatches
from orchestrator.engine.histories import Histories, WorkflowNotFound
from orchestrator.engine.listing import InvalidCursor, decoded, encoded
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import BatchNotFound, TaskNotFound
from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus

PAGE_BYTES = 1_500_000
"""Of the results of one page, the first of them set aside."""
OUTCOME_BYTES = 8_000_000
"""Of the results that are answered at once to whoever joins them."""
_LOOKED_AT = 1_000
"""Items with a workflow of their own that one page asks for at most."""
_CURSOR = b"batch:"
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


class Batches:
    """The engine's batches, each call bounded by ``rpc_timeout`` seconds.

    ``own`` gives the status of a task that has a workflow of its own. Every method raises
    EngineUnavailable when the engine does not answer. Looking needs no worker.
    """

    def __init__(
        self, client: Client, rpc_timeout: float, own: OwnStatus, *, notes_builds: bool = False
    ) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)
        self._histories = Histories(client, rpc_timeout)
        records = BatchRecords(self._histories, client.data_converter)
        self._parts = BatchParts(self._histories, records, client.data_converter)
        self._items = BatchItems(client, self._parts, records, own, rpc_timeout)
        self._watches = BatchWatches(self._parts, records)
        self._counts = BatchCounts(client, self._parts, self._histories, rpc_timeout)
        self.starts = BatchStarts(
            client, self._parts, self._histories, rpc_timeout, notes_builds=notes_builds
        )
        self.lists = BatchLists(client, self._counts, rpc_timeout)

    async def status(self, batch_id: str, wait: float = 0) -> BatchStatus:
        """How many items have ended, and how; with ``wait`` seconds once all have, or then.

        Raises:
            BatchNotFound: no such batch.
        """
        end = time.monotonic() + wait
        status = await self._counts.status(batch_id)
        if status.status.is_final or wait <= 0:
            return status
        try:
            await self._histories.closing_event(batch_id, wait)
        except WorkflowNotFound:
            raise BatchNotFound(batch_id) from None
        status = await self._counts.status(batch_id)
        # Items that were redriven go on when the batch itself has ended.
        while not status.status.is_final and time.monotonic() < end:
            await asyncio.sleep(min(_LONGEST_PAUSE, max(0, end - time.monotonic())))
            status = await self._counts.status(batch_id)
        return status

    async def news(self, batch_id: str, seconds: float) -> BatchStatus:
        """How its items have ended, once it has recorded something new, or after so many seconds.

        Raises:
            BatchNotFound: no such batch.
        """
        end = time.monotonic() + min(seconds, _SHORTEST_PAUSE)
        lead = await self._news(batch_id, seconds, seconds)
        # Of one that is closed nothing tells which items are run again.
        rest = seconds if lead and lead.closed else end - time.monotonic()
        await asyncio.sleep(max(0, rest))
        return await self._counts.status(batch_id)

    async def item(self, batch_id: str, position: int) -> TaskStatus:
        """One item, as GET /status shows it.

        Raises:
            TaskNotFound: no such batch, or no such item in it.
        """
        return (await self.look(batch_id, position)).status

    async def look(self, batch_id: str, position: int, wait: float = 0) -> Seen:
        """One item and what it waits for; with ``wait`` seconds once it has ended, or then.

        Raises:
            TaskNotFound: no such batch, or no such item in it.
        """
        end, pause = time.monotonic() + wait, _SHORTEST_PAUSE
        while True:
            seen = None
            try:
                lead = await self._news(batch_id, pause, end - time.monotonic())
                if time.monotonic() >= end or not self._items.is_under_way(position, lead):
                    seen = await self._items.item(batch_id, position, lead)
            except BatchNotFound:
                raise TaskNotFound(item_id(batch_id, position)) from None
            left = end - time.monotonic()
            if seen and (seen.own or seen.status.status.is_final or left <= 0):
                return seen
            if lead and lead.closed:
                # An item of a further part: nothing tells of those.
                await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def _news(self, batch_id: str, pause: float, left: float) -> Part | None:
        """The batch once there is news, or after the pause; None where no time is left."""
        if left <= 0:
            return None
        try:
            # Others may have begun to wait for longer.
            async with asyncio.timeout(left):
                return await self._watches.next(batch_id, min(pause, left))
        except TimeoutError:
            return None

    async def outcomes(self, batch_id: str, positions: Iterable[int]) -> dict[int, TaskStatus]:
        """Those of the items that have ended, by position.

        Where their results have more than OUTCOME_BYTES together only the first are answered; ask
        again for the rest.

        Raises:
            BatchNotFound: no such batch.
        """
        parts = await self._parts.all(batch_id)
        return await self._items.outcomes(parts, positions, OUTCOME_BYTES)

    async def page(
        self,
        batch_id: str,
        size: int,
        cursor: str | None = None,
        state: TaskState | None = None,
    ) -> tuple[list[TaskStatus], str | None]:
        """Items in the order of their positions, and the cursor of the next page.

        A page may hold fewer than ``size``: its results have at most PAGE_BYTES beside the first.
        Whether an item was run again is taken from the engine's lists, which lag by some 100 ms.

        Raises:
            BatchNotFound: no such batch.
            InvalidCursor: the cursor is not one of ours.
        """
        start = _position(cursor)
        page: list[TaskStatus] = []
        held = asked = 0
        for part in await self._parts.all(batch_id):
            positions = [each for each in part.positions if each >= start]
            async for position, seen, size_bytes in self._items.walk(part, positions, state):
                asked += seen.own
                wanted = state in {None, seen.status.status}
                full = len(page) == size or (page and held + size_bytes > PAGE_BYTES)
                if asked > _LOOKED_AT or (wanted and full):
                    return page, encoded(_CURSOR + str(position).encode())
                if wanted:
                    held += size_bytes if page else 0
                    page.append(seen.status)
        return page, None

    async def cancel(self, batch_id: str) -> BatchStatus:
        """Ask it to end, and its calls in flight; what has ended stays as it is.

        Raises:
            BatchNotFound: no such batch.
        """
        await self._parts.lead(batch_id)
        await self._tell(self._client.get_workflow_handle(batch_id).cancel)
        return await self._counts.status(batch_id)

    async def cancel_item(self, batch_id: str, position: int) -> TaskStatus:
        """Cancel an item, and cut off its call; one that has ended stays as it is.

        Raises:
            TaskNotFound: no such batch, or no such item in it.
        """
        seen = await self.look(batch_id, position)
        if seen.status.status.is_final:
            return seen.status
        if seen.own:
            await self._tell(self._client.get_workflow_handle(seen.status.task_id).cancel)
        else:
            part = await self._parts.holding(batch_id, position)
            workflow_id = part.execution.workflow_id if part else batch_id
            handle = self._client.get_workflow_handle(workflow_id)
            await self._tell(handle.signal, CANCEL_ITEMS, [position])
            self._parts.forget(batch_id)
        return await self.item(batch_id, position)

    async def _tell(self, order: Any, *arguments: Any) -> None:
        """Give a workflow an order; one that has ended needs none."""
        try:
            async with engine_call(self._deadline):
                await order(*arguments, rpc_timeout=self._deadline)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise


def _position(cursor: str | None) -> int:
    token = decoded(cursor)
    if cursor is None:
        return 0
    kind, _, position = token.partition(_CURSOR)
    if kind or not position.isdigit():
        raise InvalidCursor(cursor)
    return int(position)
