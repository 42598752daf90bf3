"""An agent in a process of its own that answers at once and writes down when each call arrived.

It speaks just enough HTTP, so that what is measured is the way to it and not its own framework. The
first line on stdout is its URL, each further one the time of a call by the monotonic clock, which
all processes of a machine share.
"""

import asyncio
import re
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class _Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._received = b""
        self._arrived = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - TCP can be written
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Note when a request began to arrive; answer when it is whole."""
        self._arrived = self._arrived or time.monotonic_ns()
        self._received += data
        head, gap, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not gap or len(body) < (int(length[1]) if length else 0):
            return
        if head.startswith(b"POST"):
            print(self._arrived, flush=True)
        if self._transport is not None:
            self._transport.write(_ANSWER)
        self._received, self._arrived = b"", 0


async def serve() -> None:
    """Serve until stdin closes."""
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
