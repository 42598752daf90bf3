"""An agent below HTTP: it reads requests, and writes to the connection whatever a test wants."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from orchestrator.transports import AgentRequest, AgentResponse
from orchestrator.transports.http import HttpTransport

MAX_RESULT_BYTES = 100_000
DEADLINE_SECONDS = 20.0

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawAgent:
    """What the agent saw: the heads of requests by connection, and connections that ended."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the caller has closed a connection before its answer was complete."""


def whole(status: str, body: bytes = b"", *headers: str) -> bytes:
    """A well-formed answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def zipped(status: str, megabytes: int) -> bytes:
    """An answer of a few kilobytes that unfolds to so many megabytes of blanks."""
    body = gzip.compress(b" " * 1_000_000) * megabytes
    return whole(status, body, "Content-Encoding: gzip", "Content-Type: application/json")


@asynccontextmanager
async def raw_agent(answer: bytes | Answer, *, keep_open: bool = False) -> AsyncIterator[RawAgent]:
    """An agent that answers each request so.

    Args:
        answer: bytes to write, or what writes them.
        keep_open: wait for the next request, or for the caller to leave, instead of closing.
    """
    agent = RawAgent()
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agent.connections += 1
        serving.add(asyncio.current_task())
        try:
            while await _request(reader, agent):
                writing = asyncio.create_task(_write(answer, writer))
                leaving = asyncio.create_task(_gone(reader))
                await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if leaving.done() and not writing.done():
                    agent.left.set()
                for task in (writing, leaving):
                    task.cancel()
                await asyncio.gather(writing, leaving, return_exceptions=True)
                if not keep_open:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            agent.left.set()
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    agent.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/work"
    try:
        yield agent
    finally:
        server.close()
        await server.wait_closed()
        handlers = [task for task in serving if task is not None]
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def _request(reader: asyncio.StreamReader, agent: RawAgent) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
    )
    await reader.readexactly(int(length.split(b":")[1]))
    agent.requests.append(head)
    agent.heard.set()
    return True


async def _write(answer: bytes | Answer, writer: asyncio.StreamWriter) -> None:
    if isinstance(answer, bytes):
        writer.write(answer)
        await writer.drain()
    else:
        await answer(writer)


async def _gone(reader: asyncio.StreamReader) -> None:
    """Wait until the caller has left; it sends nothing before its answer."""
    while not reader.at_eof():
        if reader._buffer:  # type: ignore[attr-defined]
            return
        await asyncio.sleep(0.005)


@asynccontextmanager
async def transport(max_result_bytes: int = MAX_RESULT_BYTES) -> AsyncIterator[HttpTransport]:
    """A transport that is closed at the end."""
    opened = HttpTransport(max_result_bytes)
    try:
        yield opened
    finally:
        await opened.close()


def request(url: str, timeout: float = 10.0, **changes: Any) -> AgentRequest:
    """A request to the URL."""
    fields: dict[str, Any] = {"payload": {"file": "a.pdf"}, "headers": {}} | changes
    return AgentRequest(agent="reader", url=url, timeout=timeout, **fields)


async def send(url: str, timeout: float = 10.0, **changes: Any) -> AgentResponse:
    """Send one request by a transport of its own."""
    async with transport() as opened:
        return await opened.send(request(url, timeout, **changes))
