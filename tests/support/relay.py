"""A relay in front of a server on this machine: it counts connections, and can cut them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ssl import SSLContext


@dataclass
class Relay:
    """What goes through it; callers may speak TLS to it, and it never does to the server."""

    target: int
    tls: SSLContext | None = None
    port: int = 0
    connections: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Break all connections, as a network does."""
        for each in self._open:
            if not each.is_closing():
                each.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        self._open |= {writer, back}
        with contextlib.suppress(OSError):
            await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def relay(target: int, tls: SSLContext | None = None) -> AsyncIterator[Relay]:
    """A relay to that port."""
    through = Relay(target, tls)
    server = await asyncio.start_server(through.serve, "127.0.0.1", 0, ssl=tls)
    through.port = server.sockets[0].getsockname()[1]
    try:
        yield through
    finally:
        server.close()
        through.cut()
