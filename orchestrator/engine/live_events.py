"""Live streams of what happens to tasks, batches and aggregates, as the API serves them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, Self

from temporalio.client import Client

from orchestrator.aggregate_status import AggregateState, AggregateStatus
from orchestrator.batches import BatchStatus
from orchestrator.engine.aggregates import Aggregates
from orchestrator.engine.feeds import Feeds, Listener, Place
from orchestrator.engine.task_source import ENGINE_PAUSE_SECONDS, TaskSource
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import EngineUnavailable, StreamsFull, UnknownEvent
from orchestrator.events import IN_BATCH, Cursor, LiveEvent
from orchestrator.models import Model, TaskState

MAX_STREAMS = 256
"""Of one process; each thing that is followed holds one of the engine's long polls."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 5.0
"""Between looks at counts, which grow rarer while nothing changes."""


class Stream(Protocol):
    """Events for one client; to be closed when the client has left."""

    def news(self) -> AsyncIterator[LiveEvent]:
        """What is new to it, as it happens, until the end."""

    def close(self) -> None:
        """It listens no more."""


class LiveEvents:
    """The streams of one process: each thing is followed once, however many listen.

    Every method answers None where all is over and the client has heard it, and raises StreamsFull,
    UnknownEvent for a last event that none of these streams tells, EngineUnavailable, and the error
    of what does not exist.
    """

    def __init__(
        self,
        client: Client,
        tasks: Tasks,
        aggregates: Aggregates,
        rpc_timeout: float,
        most: int = MAX_STREAMS,
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._aggregates = aggregates
        self._rpc_timeout = rpc_timeout
        self._most = most
        self._open = 0
        self._feeds = Feeds(most)

    async def task(self, task_id: str, last: str | None) -> Stream | None:
        """What happens to a task; ``last`` is the id of the latest event that was heard."""
        cursor = Cursor.of(last) if last else None
        if last and cursor is None:
            raise UnknownEvent(last)
        source = TaskSource(self._client, self._tasks, self._rpc_timeout, task_id)
        with self._one_more() as stream:
            stream.listener = await self._feeds.of(f"task {task_id}", source).listen(
                _AfterEvent(cursor)
            )
            if stream.listener and cursor and cursor.run != IN_BATCH:
                stream.before = await source.rest_of(cursor)
        return stream if stream.listener else None

    async def batch(self, batch_id: str, last: str | None) -> Stream | None:
        """How the items of a batch end, in numbers."""
        batches = self._tasks.batches
        counts = _Counts(lambda wait: batches.news(batch_id, wait), _of_batch)
        return await self._counted(f"batch {batch_id}", counts, last)

    async def aggregate(self, aggregate_id: str, last: str | None) -> Stream | None:
        """How the tasks of an aggregate end, in numbers; at the end with their results."""
        aggregates = self._aggregates
        counts = _Counts(lambda wait: aggregates.progress(aggregate_id, wait), _of_aggregate)
        return await self._counted(f"aggregate {aggregate_id}", counts, last)

    async def _counted(self, key: str, counts: "_Counts", last: str | None) -> Stream | None:
        with self._one_more() as stream:
            stream.listener = await self._feeds.of(key, counts).listen(_AfterCounts(last))
        return stream if stream.listener else None

    def _one_more(self) -> "_Stream":
        if self._open >= self._most:
            raise StreamsFull(self._most)
        self._open += 1
        return _Stream(self._one_less)

    def _one_less(self) -> None:
        self._open -= 1


class _Stream:
    """A place among those that may be open, given up unless there is something to listen to."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self.listener: Listener | None = None
        self.before: Sequence[LiveEvent] = ()
        """What an earlier run had yet to tell."""
        self._on_close: Callable[[], None] | None = on_close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed or self.listener is None:
            self.close()

    async def news(self) -> AsyncIterator[LiveEvent]:
        for event in self.before:
            yield event
        if self.listener is not None:
            async for event in self.listener.news():
                yield event

    def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
        if self._on_close is not None:
            self._on_close()
            self._on_close = None


class _AfterEvent(Place):
    """After an event of a task."""

    def __init__(self, cursor: Cursor | None) -> None:
        self._cursor = cursor

    def start(self, told: Sequence[LiveEvent]) -> int:
        runs = [each.cursor.run if each.cursor else "" for each in told]
        run = self._cursor.run if self._cursor else ""
        return runs.index(run) if run in runs else 0

    def is_news(self, event: LiveEvent) -> bool:
        cursor = self._cursor
        if cursor is None or event.cursor is None:
            return True
        if event.cursor.run == cursor.run:
            return event.cursor.at > cursor.at
        return cursor.run == IN_BATCH or event.cursor.run != IN_BATCH


class _AfterCounts(Place):
    """After counts that were told: what comes next, or what there is now."""

    def __init__(self, last: str | None) -> None:
        self._last = last

    def start(self, told: Sequence[LiveEvent]) -> int:
        for index in reversed(range(len(told))):
            if told[index].id == self._last:
                return index + 1
        return max(0, len(told) - 1)

    def is_news(self, event: LiveEvent) -> bool:
        # Later on the numbers may come to be the same again.
        is_news, self._last = event.id != self._last, None
        return is_news


class _Counts:
    """Something that is counted, until it has ended; an engine that is away is waited for.

    Args:
        look: at it; with seconds, when there is news, or then.
        event: what is told of it, and whether that is the last.
    """

    def __init__(
        self,
        look: Callable[[float], Awaitable[Model]],
        event: Callable[[Model], tuple[LiveEvent, bool]],
    ) -> None:
        self._look = look
        self._event = event
        self._first: tuple[LiveEvent, bool] | None = None

    async def begin(self) -> bool:
        self._first = self._event(await self._look(0))
        return self._first[1]

    async def events(self) -> AsyncIterator[LiveEvent]:
        assert self._first is not None  # noqa: S101 - it has begun
        event, is_last = self._first
        yield event
        pause, doubtful = FIRST_PAUSE_SECONDS, ""
        while not is_last:
            try:
                following, is_last = self._event(await self._look(pause))
            except EngineUnavailable:
                await asyncio.sleep(ENGINE_PAUSE_SECONDS)
                continue
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
            if following.id == event.id:
                continue
            # What ended a moment ago may be missing for another: that is believed if it stays.
            if _ended(following) < _ended(event) and following.id != doubtful:
                doubtful = following.id
                continue
            event, pause, doubtful = following, FIRST_PAUSE_SECONDS, ""
            yield event


def _of_batch(status: Model) -> tuple[LiveEvent, bool]:
    assert isinstance(status, BatchStatus)  # noqa: S101 - as Batches.news answers
    running = status.status is TaskState.RUNNING
    name = f"batch.{'progress' if running else status.status.value}"
    ends = (status.completed, status.failed, status.cancelled)
    return LiveEvent(_id(status.status, ends), name, status.model_dump_json()), (
        status.status.is_final
    )


def _of_aggregate(status: Model) -> tuple[LiveEvent, bool]:
    assert isinstance(status, AggregateStatus)  # noqa: S101 - as Aggregates.progress answers
    running = status.status is AggregateState.RUNNING
    name = f"aggregate.{'progress' if running else status.status.value}"
    ends = (status.completed, status.failed, status.cancelled)
    return LiveEvent(_id(status.status, ends), name, status.model_dump_json()), not running


def _ended(event: LiveEvent) -> tuple[bool, int]:
    """How far it has come, so that less of it is noticed."""
    *ends, state = event.id.split("-")
    return state != TaskState.QUEUED, sum(map(int, ends))


def _id(state: str, ends: Sequence[int]) -> str:
    """How many have completed, failed and been cancelled, and the state of the whole."""
    return "-".join((*map(str, ends), state))
