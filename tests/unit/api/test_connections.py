"""Connections that take too much: answered and closed, before the application sees anything."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.connections import BoundedProtocol, answering_at_the_end
from orchestrator.config import Limits

SECONDS = 10


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, and says so."""
    request = Request(scope, receive, send)
    await request.body()
    await Response("fine")(scope, receive, send)


@asynccontextmanager
async def served(
    limits: Limits, application: ASGIApp = app, protocol: type[BoundedProtocol] = BoundedProtocol
) -> AsyncIterator[int]:
    """The port of a server with these limits; a second after the block it gives up what goes on."""
    config = uvicorn.Config(
        application,
        port=0,
        http=protocol.within(limits),
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(SECONDS):
        while not server.started:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def sent(port: int, data: bytes) -> bytes:
    """What is answered until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(SECONDS):
        answer = await reader.read()
    writer.close()
    return answer


GOOD = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
KEPT = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
STATUSES = re.compile(rb"HTTP/1.1 (\d{3})")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GOOD, b"200"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 3000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 3000, b"431"),
        (b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"A: x\r\n" * 30 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nA: x", b"408"),
        (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx", b"408"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"", b""),
    ],
)
async def test_what_is_too_much_is_answered_and_closed(data: bytes, status: bytes) -> None:
    """As a problem document; one that says nothing gets nothing."""
    limits = Limits(max_header_bytes=2048, max_headers=20, header_seconds=0.3, body_seconds=0.3)
    async with served(limits) as port:
        answer = await sent(port, data)
    assert status == answer.partition(b" ")[2][:3]
    assert status in {b"", b"200"} or b"application/problem+json" in answer


async def test_a_connection_over_the_number_is_told_so() -> None:
    """And there is a place again when another has gone."""
    async with served(Limits(max_connections=1)) as port:
        _, first = await asyncio.open_connection("127.0.0.1", port)
        refused = await sent(port, b"")
        first.close()
        await first.wait_closed()
        found = await _eventually(lambda: b"200", lambda: sent(port, GOOD))
    assert (b"503", b"200") == (refused.partition(b" ")[2][:3], found)


async def _eventually(wanted: Callable[[], bytes], ask: Callable[[], object]) -> bytes:
    async with asyncio.timeout(SECONDS):
        while True:
            answer: bytes = await ask()  # type: ignore[misc]
            if wanted() in answer[:20]:
                return wanted()
            await asyncio.sleep(0.02)


async def test_a_kept_connection_is_not_cut_between_requests() -> None:
    """The time for the headers begins with the request."""
    limits = Limits(header_seconds=0.2, body_seconds=0.2)
    async with served(limits) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(KEPT)
            async with asyncio.timeout(SECONDS):
                assert b"fine" in await reader.readuntil(b"fine")
            await asyncio.sleep(0.3)
        writer.close()


async def test_a_body_that_waits_for_its_turn_has_so_long_from_then_on() -> None:
    """The request before it is answered; then it is told that it is late."""
    late = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"
    async with served(Limits(body_seconds=0.3)) as port:
        answer = await sent(port, KEPT + late)
    assert [b"200", b"408"] == STATUSES.findall(answer)


async def test_an_empty_line_after_an_answer_holds_no_connection() -> None:
    """A request has to follow it."""
    async with served(Limits(header_seconds=0.3)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(KEPT)
        async with asyncio.timeout(SECONDS):
            await reader.readuntil(b"fine")
            writer.write(b"\r\n")
            assert b"" == await reader.read()
        writer.close()


class Named:
    """Answers with the names of the headers, once the body is read."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, and tell."""
        request = Request(scope, receive, send)
        async for _ in request.stream():
            self.has_begun.set()
        await Response(b",".join(name for name, _ in scope["headers"]))(scope, receive, send)


CHUNKED = b"POST / HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"


@pytest.mark.parametrize("rest", [b"0\r\n" + b"A: x\r\n" * 500, b"2;" + b"x" * 3000])
async def test_what_goes_on_around_a_body_is_bounded_as_headers_are(rest: bytes) -> None:
    """Trailers without end, and what may stand beside the size of a chunk."""
    named = Named()
    async with served(Limits(max_header_bytes=2048), named) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CHUNKED)
        async with asyncio.timeout(SECONDS):
            await named.has_begun.wait()
            writer.write(rest)
            assert [b"431"] == STATUSES.findall(await reader.read())
        writer.close()


async def test_trailers_are_no_headers() -> None:
    """The application does not see them."""
    async with served(Limits(), Named()) as port:
        answer = await sent(port, CHUNKED + b"0\r\nA: x\r\n\r\n")
    assert answer.endswith(b"connection,transfer-encoding")


async def test_a_body_may_come_in_many_small_chunks() -> None:
    """What stands around them is more than headers may be."""
    async with served(Limits(max_header_bytes=1024)) as port:
        answer = await sent(port, CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
    assert [b"200"] == STATUSES.findall(answer)


@pytest.mark.parametrize(("begun", "status"), [(False, b"503"), (True, b"200")])
async def test_what_outlasts_the_grace_of_a_stop_is_to_be_asked_again(
    *, begun: bool, status: bytes
) -> None:
    """With 503 and when; where an answer has begun, its connection ends."""
    going = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
        going.set()
        await asyncio.Event().wait()

    async with served(Limits(), answering_at_the_end(endless)) as port:
        answer = asyncio.create_task(sent(port, GOOD))
        await going.wait()

    head = (await answer).split(b"\r\n\r\n")[0].lower()
    assert head.split()[1] == status
    assert (b"retry-after: 1" in head) is not begun


async def test_a_request_that_is_under_way_is_not_answered_for_the_next() -> None:
    """One that is too large, sent behind it, ends the connection without a word."""
    going, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        going.set()
        await goes_on.wait()
        await Response("fine")(scope, receive, send)

    first = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    second = b"GET /b HTTP/1.1\r\nA: " + b"x" * 3000 + b"\r\n\r\n"
    async with served(Limits(max_header_bytes=1024), slow) as port:
        answer = asyncio.create_task(sent(port, first + second))
        await going.wait()
        told = await answer
        goes_on.set()

    assert told == b""


async def test_what_is_answered_while_the_api_drains_is_the_last_of_its_connection() -> None:
    """Also what was asked before."""
    going, goes_on = asyncio.Event(), asyncio.Event()
    connections: list[BoundedProtocol] = []

    class Known(BoundedProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            connections.append(self)
            super().connection_made(transport)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        going.set()
        await goes_on.wait()
        await Response("fine")(scope, receive, send)

    async with served(Limits(), slow, Known) as port:
        answer = asyncio.create_task(sent(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        await going.wait()
        connections[0].keep_alive_no_more()
        goes_on.set()
        told = await answer

    assert b"connection: close" in told
