"""Group commit: tasks that are handed in at the same moment are started as one batch.

Nobody is answered before the engine has the batch, so a crash loses nothing that was answered.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from orchestrator.batches import PART_BYTES, Batch, BatchPlan, batch_id_of, item_id
from orchestrator.batching import ITEM_OVERHEAD_BYTES, escaped_bytes, item_text
from orchestrator.config import Coalescing
from orchestrator.errors import EngineUnavailable
from orchestrator.models import Dispatch, Plan, TaskRequest

LARGE_BYTES = 100_000
"""A task whose text is larger gains nothing by company, and would make that wait."""

REST_SECONDS = 0.05
"""A rest is never longer: an engine that takes longer may be far away rather than busy."""

Start = Callable[[Batch], Coroutine[Any, Any, None]]
"""Starts a batch; returns once the engine has it, or raises why it has not."""


@dataclass(frozen=True, slots=True)
class Item:
    """A task's request as its batch carries it: JSON, and how many bytes that takes there."""

    text: str
    size: int
    tenant: str

    @classmethod
    def of(cls, request: TaskRequest, traceparent: str | None = None) -> "Item":
        """The request with the caller's trace context, which others of its batch do not share."""
        text = item_text(request)
        if traceparent is not None:
            text = b'%b,"traceparent":%b}' % (text[:-1], to_json(traceparent))
        return cls(text.decode(), escaped_bytes(text) + ITEM_OVERHEAD_BYTES, request.tenant)

    @property
    def is_large(self) -> bool:
        """Whether it is better started by itself."""
        return self.size > LARGE_BYTES


class Group:
    """Tasks that are started together; a task's place among them is its position in the batch."""

    def __init__(self) -> None:
        self.batch_id = batch_id_of(uuid.uuid4())
        self.created_at = datetime.now(UTC)
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_due = False
        self.overdue: asyncio.TimerHandle | None = None
        """Cancelled when its turn comes."""
        self._items: list[str] = []
        self._chosen: list[int] = []
        self._plans: dict[tuple[Plan, str], int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def has_room_for(self, item: Item) -> bool:
        """Whether the batch still fits into one input of the engine with the item."""
        return not self._items or self._bytes + item.size <= PART_BYTES

    def add(self, item: Item, plan: Plan) -> int:
        """Take the item in; its position."""
        index = self._plans.get((plan, item.tenant))
        if index is None:
            index = self._plans[plan, item.tenant] = len(self._plans)
            self._bytes += len(plan.model_dump_json())
        self._items.append(item.text)
        self._chosen.append(index)
        self._bytes += item.size
        return len(self._items) - 1

    def fail(self, error: Exception) -> None:
        """Tell every request of the group, those that were given up left aside."""
        self.started.set_exception(error)
        self.started.exception()

    def batch(self) -> Batch:
        """What its workflow starts with.

        Each task was accepted by itself: its deadline counts from now on, and its token was taken.
        """
        return Batch(
            plans=tuple(
                BatchPlan(
                    plan=plan.model_copy(update={"dispatch": Dispatch.QUEUED}),
                    strict=True,
                    tenant=tenant,
                )
                for plan, tenant in self._plans
            ),
            items=tuple(self._items),
            chosen=tuple(self._chosen),
            batch_id=self.batch_id,
            coalesced=True,
            created_at=self.created_at,
        )


class Coalescer:
    """Gathers tasks into groups, and has each group started.

    A group goes at once where nothing is being started or rests, else after the window, or when it
    is full. No more than ``max_starts`` are under way, and a start of several tasks, or one that
    others have waited for, is followed by a rest as long as it was itself: so a busy engine makes
    groups larger, not more. A full group waits for no rest. One event loop uses it, so nothing is
    locked. A group whose turn does not come within ``patience`` seconds, since the engine does not
    answer, is not started at all. ``clock`` tells seconds.
    """

    def __init__(
        self,
        settings: Coalescing,
        start: Start,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._start = start
        self._patience = patience
        self._clock = clock
        self._open: Group | None = None
        self._full: list[Group] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._resting = 0

    async def submit(self, item: Item, plan: Plan) -> tuple[str, datetime]:
        """Start a task, which was admitted by that plan, together with others.

        Returns:
            The task's id, and when it was accepted.

        Raises:
            Exception: whatever kept its group from being started.
        """
        group, position = self._add(item, plan)
        # A request that is given up must not take those of others with it.
        await asyncio.shield(group.started)
        return item_id(group.batch_id, position), group.created_at

    def _add(self, item: Item, plan: Plan) -> tuple[Group, int]:
        if self._open and not self._open.has_room_for(item):
            self._close()
        group = self._open or self._begin()
        position = group.add(item, plan)
        if len(group) >= self.settings.max_tasks:
            self._close()
        return group, position

    def _begin(self) -> Group:
        group = self._open = Group()
        # Even at once is after this turn of the loop, and takes along what was read in it.
        window = self.settings.window if self._starting else 0
        loop = asyncio.get_running_loop()
        loop.call_later(window, self._on_due, group)
        group.overdue = loop.call_later(self._patience, self._give_up, group)
        return group

    def _give_up(self, group: Group) -> None:
        if group is self._open:
            self._open = None
        else:
            self._full.remove(group)
        group.fail(EngineUnavailable("The engine did not answer in time"))

    def _on_due(self, group: Group) -> None:
        group.is_due = True
        self._launch()

    def _close(self) -> None:
        """The open group takes no more."""
        if self._open is not None:
            self._full.append(self._open)
            self._open = None
            self._launch()

    def _launch(self) -> None:
        """Start what is full or due, as far as there may be more starts under way."""
        while len(self._starting) < self.settings.max_starts and (group := self._next()):
            if group.overdue:
                group.overdue.cancel()
            running = asyncio.create_task(self._run(group))
            self._starting.add(running)
            running.add_done_callback(self._on_done)

    def _next(self) -> Group | None:
        if self._full:
            return self._full.pop(0)
        group = self._open
        has_place = len(self._starting) + self._resting < self.settings.max_starts
        if group is not None and has_place and (group.is_due or not self._starting):
            self._open = None
            return group
        return None

    def _on_done(self, running: asyncio.Task[None]) -> None:
        self._starting.discard(running)
        self._launch()

    async def _run(self, group: Group) -> None:
        began = self._clock()
        try:
            await self._start(group.batch())
        except Exception as error:  # noqa: BLE001 - it is raised to every request of the group
            group.fail(error)
        else:
            group.started.set_result(None)
            if len(group) > 1 or self._open:
                self._rest(self._clock() - began)

    def _rest(self, seconds: float) -> None:
        self._resting += 1
        asyncio.get_running_loop().call_later(min(seconds, REST_SECONDS), self._on_rested)

    def _on_rested(self) -> None:
        self._resting -= 1
        self._launch()
