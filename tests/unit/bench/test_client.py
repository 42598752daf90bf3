"""The client of the measurements."""

import asyncio

from bench.client import Client
from orchestrator.security.exposure import is_nobodys


async def test_an_api_that_asks_nobody_takes_its_requests() -> None:
    """Such a one refuses hosts that may be another site's."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = await Client.connect(f"http://127.0.0.1:{port}")
        assert {} == await client.request("GET", "/health")
        client.close()

    [head] = heads
    [host] = [line[6:] for line in head.decode().splitlines() if line.startswith("Host: ")]
    assert f"127.0.0.1:{port}" == host
    assert is_nobodys(host)
