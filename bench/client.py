"""A keep-alive HTTP client that costs next to nothing, so that what is measured is the server."""

import asyncio
import json
import re
from typing import Any, Self
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client:
    """One connection; one request at a time."""

    def __init__(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect to http://host:port."""
        parts = urlsplit(url)
        return cls(parts.netloc, *await asyncio.open_connection(parts.hostname, parts.port))

    async def request(self, method: str, path: str, body: Any = None, headers: str = "") -> Any:
        """Send a request, with further header lines if need be, and return the JSON answer."""
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
        )
        self._writer.write(head.encode() + data)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(answer)
        if length is None:
            raise ValueError(f"an answer without a length: {answer!r}")
        return json.loads(await self._reader.readexactly(int(length[1])))

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
