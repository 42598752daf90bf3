"""A stream as it is written: keep-alives, and an end when the client or the process leaves."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from api import events
from api.events import EventStream
from orchestrator.events import LiveEvent


class Silent:
    """A stream that tells one thing, and then nothing for ever."""

    def __init__(self) -> None:
        self.closed = 0

    async def news(self) -> AsyncIterator[LiveEvent]:
        """One event."""
        yield LiveEvent("run:1", "task.queued", '{"status":"queued"}')
        await asyncio.Event().wait()

    def close(self) -> None:
        """Counted."""
        self.closed += 1


class Client:
    """An HTTP client, as an application sees it."""

    def __init__(self) -> None:
        self.heard = b""
        self.has_ended = False
        self.leaves = asyncio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        """Nothing, until it leaves."""
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """What is written to it."""
        self.heard += message.get("body", b"")
        self.has_ended = message.get("more_body") is False

    async def hears(self, what: bytes) -> None:
        """Wait until it has heard it."""
        async with asyncio.timeout(5):
            while what not in self.heard:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("why", ["client", "process"])
async def test_a_stream_ends_with_its_client_or_the_process(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it is kept alive by comments; then it is closed, with a hint to come back."""
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.02)
    stream, client, stopping = Silent(), Client(), asyncio.Event()
    answering = asyncio.create_task(
        EventStream(stream, stopping)({"type": "http"}, client.receive, client.send)
    )
    await client.hears(b": still there\n\n: still there\n\n")
    assert client.heard.startswith(
        b'retry: 1000\n\nid: run:1\nevent: task.queued\ndata: {"status":"queued"}\n\n:'
    )
    assert 0 == stream.closed
    (client.leaves if why == "client" else stopping).set()
    async with asyncio.timeout(5):
        await answering
    assert 1 == stream.closed
    assert client.has_ended
    goodbye = b": this process stops; connect again\nretry: 1000\n\n"
    assert client.heard.endswith(goodbye) == (why == "process")
