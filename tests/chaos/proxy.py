"""A TCP proxy that can be told to cut, stall or slow the connections that go through it."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

CHUNK_BYTES = 64 * 1024


@dataclass
class Proxy:
    """Forwards a port of this machine to another; an async context manager."""

    port: int
    target: int
    cuts: int = 0
    """Connections that were cut or refused."""
    stalls: int = 0
    """Pieces that were held up."""
    _delay: float = 0.0
    _refuses: bool = False
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self._flows.set()
        self.cut()

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        for writer in tuple(self._writers):
            self.cuts += 1
            writer.transport.abort()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Reset every connection, and every new one at once."""
        self._refuses = True
        self.cut()
        try:
            yield
        finally:
            self._refuses = False

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Take what comes and pass nothing on: a cable that was cut."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @contextlib.contextmanager
    def slowed(self, seconds: float) -> Iterator[None]:
        """Pass each piece on so much later."""
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0.0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            self.cuts += 1
            writer.transport.abort()
            return
        try:
            further, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(further, writer))
        finally:
            self._writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                if not self._flows.is_set():
                    self.stalls += 1
                await self._flows.wait()
                if self._delay:
                    self.stalls += 1
                    await asyncio.sleep(self._delay)
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
