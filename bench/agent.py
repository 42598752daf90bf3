"""An agent in a process of its own that answers at once and writes down when each call arrived.

It speaks just enough HTTP, so that what is measured is the way to it and not its own framework. The
first line on stdout is its URL, each further one the time of a call by the monotonic clock, which
all processes of a machine share; with ``--quiet`` there are none but those of ``POST /timed``.

``POST /slow`` is answered after 50 ms, ``POST /hold`` never; ``GET /calls`` tells how many calls
have been answered, and the sum of the times at which they arrived.
"""

import asyncio
import re
import sys
import time

import uvloop

SLOW_SECONDS = 0.05
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """One keep-alive connection."""

    calls = arrivals = 0
    """Of all connections: answered calls, and the sum of their times."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._received = b""
        self._arrived = 0
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Note when a request began to arrive; answer when it is whole."""
        self._arrived = self._arrived or time.monotonic_ns()
        self._received += data
        head, gap, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not gap or len(body) < (int(length[1]) if length else 0):
            return
        if head.startswith(b"POST /hold"):
            self._received, self._arrived = b"", 0
            return
        if head.startswith(b"POST /slow"):
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._answer, head, self._arrived)
        else:
            self._answer(head, self._arrived)
        self._received, self._arrived = b"", 0

    def _answer(self, head: bytes, arrived: int) -> None:
        text = b"{}"
        if head.startswith(b"POST"):
            _Connection.calls += 1
            _Connection.arrivals += arrived
            if not self._quiet or head.startswith(b"POST /timed "):
                print(arrived, flush=True)
        elif head.startswith(b"GET /calls "):
            text = b'{"calls": %d, "arrivals": %d}' % (self.calls, self.arrivals)
        self._transport.write(  # type: ignore[union-attr]  # TCP can be written
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(text), text)
        )


async def serve(*, quiet: bool) -> None:
    """Serve until stdin closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Connection(quiet=quiet), "127.0.0.1", 0, backlog=1000
    )
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(quiet="--quiet" in sys.argv[1:]))
