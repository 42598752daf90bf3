"""Live streams as Server-Sent Events: what happens to a task, a batch, an aggregate."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.aggregates import AggregateId, check_aggregate
from api.batches import BatchId, check_batch
from api.callers import CallerDependency, check
from api.dependencies import ServicesDependency
from api.tasks import TaskId
from orchestrator.engine.live_events import Stream
from orchestrator.errors import TaskNotFound
from orchestrator.events import LiveEvent

router = APIRouter(tags=["events"])

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
"""After which a client that has lost the connection comes back."""

_GOODBYE = f": this process stops; connect again\nretry: {RETRY_MILLISECONDS}\n\n"

_EXAMPLE = """\
retry: 1000

id: 01a2082c-15a8-7d24-b481-3c73e11fe3cd:1
event: task.queued
data: {"task_id":"550e8400-e29b-41d4-a716-446655440000","status":"queued","event":"task.queued",...}

"""
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The events", "content": {MEDIA_TYPE: {"example": _EXAMPLE}}},
    204: {"description": "All is over, and the last event is one that the client has"},
    404: {"description": "Not known"},
    422: {"description": "Last-Event-ID is not the id of an event of this stream"},
    503: {"description": "The engine does not answer, or too many streams are open"},
}


async def last_event(
    header: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="Of the latest event that the client has"),
    ] = None,
    parameter: Annotated[
        str | None,
        Query(alias="last_event_id", description="The same, for clients that send no headers"),
    ] = None,
) -> str | None:
    """The id of the latest event that the client has; the header tells of a newer one."""
    return header or parameter or None


LastEvent = Annotated[str | None, Depends(last_event)]


@router.get(
    "/status/{task_id}/events", summary="Follow a task live", responses=RESPONSES, status_code=200
)
async def task_events(
    task_id: TaskId, caller: CallerDependency, services: ServicesDependency, last: LastEvent
) -> Response:
    """Everything that happens to the task, from its beginning to its end, as it happens.

    With ``Last-Event-ID`` only what came after that event. docs/events.md names the events.
    """
    await check(caller, lambda: services.tasks.status(task_id), TaskNotFound(task_id))
    return _answer(await services.live.task(task_id, last), services.process.stopping)


@router.get("/batches/{batch_id}/events", summary="Follow a batch live", responses=RESPONSES)
async def batch_events(
    batch_id: BatchId, caller: CallerDependency, services: ServicesDependency, last: LastEvent
) -> Response:
    """The batch as GET /batches/{batch_id} shows it, whenever items have ended."""
    await check_batch(caller, services, batch_id)
    return _answer(await services.live.batch(batch_id, last), services.process.stopping)


@router.get(
    "/aggregate/{aggregate_id}/events", summary="Follow an aggregate live", responses=RESPONSES
)
async def aggregate_events(
    aggregate_id: AggregateId,
    caller: CallerDependency,
    services: ServicesDependency,
    last: LastEvent,
) -> Response:
    """The aggregate's numbers whenever tasks have ended, and at its end the results too."""
    await check_aggregate(caller, services, aggregate_id)
    return _answer(await services.live.aggregate(aggregate_id, last), services.process.stopping)


def _answer(stream: Stream | None, stopping: asyncio.Event) -> Response:
    # What a browser takes for the end; after anything else it would come back.
    if stream is None:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return EventStream(stream, stopping)


class EventStream(Response):
    """Writes a stream until it ends, the client leaves, or the process stops."""

    def __init__(self, stream: Stream, stopping: asyncio.Event) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, media_type=MEDIA_TYPE
        )
        del self.headers["content-length"]
        self._stream = stream
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the stream is closed however it ends."""
        del scope
        watching = [
            asyncio.create_task(each)
            for each in (self._write(send), _left(receive), self._stopping.wait())
        ]
        try:
            await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in watching:
                each.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            self._stream.close()
        with suppress(OSError):
            if self._stopping.is_set():
                await _send(send, _GOODBYE)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await _send(send, f"retry: {RETRY_MILLISECONDS}\n\n")
        async for event in _with_silences(self._stream.news()):
            await _send(send, ": still there\n\n" if event is None else _written(event))


async def _with_silences(events: AsyncIterator[LiveEvent]) -> AsyncIterator[LiveEvent | None]:
    """The events, and None whenever there was none for a while."""
    while True:
        following = asyncio.create_task(_next(events))
        try:
            while not (await asyncio.wait({following}, timeout=KEEP_ALIVE_SECONDS))[0]:
                yield None
        finally:
            following.cancel()
        event = following.result()
        if event is None:
            return
        yield event


async def _next(events: AsyncIterator[LiveEvent]) -> LiveEvent | None:
    """The next event; None after the last."""
    return await anext(events, None)


async def _left(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def _written(event: LiveEvent) -> str:
    """An event as the format has it; JSON has no line breaks of its own."""
    return f"id: {event.id}\nevent: {event.name}\ndata: {event.data}\n\n"
