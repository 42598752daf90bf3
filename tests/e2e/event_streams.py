"""A client of live streams: reads Server-Sent Events as their standard says."""

import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True)
class Event:
    """One event as it came."""

    id: str
    name: str
    data: dict[str, Any] = field(hash=False)


async def events(
    api: httpx.AsyncClient, path: str, last: str | None = None
) -> AsyncGenerator[Event, None]:
    """The events of one connection, until the server ends it."""
    headers = {} if last is None else {"Last-Event-ID": last}
    async with api.stream("GET", path, headers=headers) as response:
        assert 200 == response.status_code, (await response.aread()).decode()
        assert response.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif not line and "data" in fields:
                yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
                fields = {}


async def some(
    api: httpx.AsyncClient, path: str, last: str | None, most: int, heard: list[Event]
) -> bool:
    """Hear at most so many more, then cut the connection; whether the server had ended it."""
    count = 0
    async with contextlib.aclosing(events(api, path, last)) as stream:
        async for event in stream:
            heard.append(event)
            count += 1
            if count == most:
                return False
    return True


async def every(api: httpx.AsyncClient, path: str, last: str | None = None) -> list[Event]:
    """All events until the end."""
    return [event async for event in events(api, path, last)]
