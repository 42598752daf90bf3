"""Agents that do not speak HTTP, break off, hang or never end."""

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from orchestrator.call_errors import (
    AgentDisconnected,
    AgentFailed,
    AgentTimedOut,
    AgentUnreachable,
    CallError,
    ReplyTooLarge,
    ReplyUnreadable,
)
from tests.unit.orchestrator.transports.raw_agent import (
    DEADLINE_SECONDS,
    raw_agent,
    request,
    send,
    transport,
    whole,
    zipped,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", AgentDisconnected),
        (b"HTTP/1.1 200 OK\r\n", AgentDisconnected),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", AgentDisconnected),
        (CHUNKED + b'5\r\n{"a"', AgentDisconnected),
        (CHUNKED + b"5\r\n[1,2]\r\n", AgentDisconnected),
        (CHUNKED + b"zz\r\n[1]", AgentFailed),
        (b"\x00\x01\x02SSH-2.0-x\r\n\r\n", AgentFailed),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", AgentFailed),
        (b"220 mail.example.org ESMTP\r\n", AgentFailed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}", AgentFailed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", AgentFailed),
        (b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n{}", AgentFailed),
        (whole("200 OK", b"{}", "X: " + "a" * 100_000), AgentFailed),
        (whole("200 OK", b"{}", *(f"X{number}: a" for number in range(20_000))), AgentFailed),
        (whole("200 OK", b"{}" * 60_000), ReplyTooLarge),
        (whole("200 OK", b"no gzip", "Content-Encoding: gzip"), ReplyUnreadable),
        (zipped("200 OK", 1), ReplyTooLarge),
    ],
)
async def test_a_broken_answer_has_its_class(answer: bytes, kind: type[CallError]) -> None:
    """Whatever comes instead of an answer is told apart, said in one line, and asked for once."""
    async with raw_agent(answer) as agent:
        with pytest.raises(CallError) as caught:
            await send(agent.url)
    assert (kind, 1) == (type(caught.value), len(agent.requests))
    assert str(caught.value).isprintable()


async def test_a_reset_instead_of_an_answer() -> None:
    """The agent may have done the work, so this is not the same as no connection."""

    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with raw_agent(reset) as agent:
        with pytest.raises(AgentDisconnected):
            await send(agent.url)
    assert 1 == len(agent.requests)


async def test_a_reset_in_the_middle_of_the_body() -> None:
    """Half an answer is none."""

    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n[1, ")
        await writer.drain()
        writer.transport.abort()

    async with raw_agent(reset) as agent:
        with pytest.raises(AgentDisconnected):
            await send(agent.url)


async def test_nobody_listens() -> None:
    """A refused connection reached nobody."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/x"
        with pytest.raises(AgentUnreachable, match=f"reader at {url} is unreachable: "):
            await send(url)


async def test_an_unknown_host() -> None:
    """A name that does not resolve reached nobody."""
    with pytest.raises(AgentUnreachable, match="is unreachable: "):
        await send("http://agent.invalid/x")


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED + b"1\r\n[\r\n"])
async def test_an_agent_that_hangs_times_out(beginning: bytes) -> None:
    """Wherever it stops, the attempt ends in time and the connection is closed."""
    async with raw_agent(beginning, keep_open=True) as agent:
        with pytest.raises(AgentTimedOut, match=r"did not answer within 0\.3 s"):
            await send(agent.url, timeout=0.3)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await agent.left.wait()


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"1"),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    ],
)
async def test_an_agent_that_drips_times_out(first: bytes, again: bytes) -> None:
    """The whole exchange has one deadline, however busy the line is."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw_agent(drip) as agent, asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(CallError) as caught:
            await send(agent.url, timeout=0.5)
    assert isinstance(caught.value, AgentTimedOut)


async def test_a_long_timeout_is_written_out() -> None:
    """Half an hour is 1800 s, not 1.8e+03 s."""
    async with transport() as one:

        async def late(_: object) -> None:
            raise TimeoutError

        one._exchange = late  # type: ignore[assignment,method-assign]
        with pytest.raises(AgentTimedOut, match="did not answer within 1800 s"):
            await one.send(request("http://h/x", timeout=1800.0004))


async def test_a_bomb_is_not_unfolded() -> None:
    """A gigabyte of blanks in a megabyte is cut at the cap, in little memory."""
    bomb = zipped("200 OK", 1000)
    before = _peak_kilobytes()
    async with raw_agent(bomb) as agent:
        with pytest.raises(ReplyTooLarge, match="more than 100,000 bytes"):
            await send(agent.url)
    assert _peak_kilobytes() - before < 200_000


def _peak_kilobytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


async def test_an_endless_answer_is_cut() -> None:
    """The cap ends what has no end."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while True:
            writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
            await writer.drain()

    async with raw_agent(endless) as agent:
        with pytest.raises(ReplyTooLarge):
            await send(agent.url)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_refusal_before_the_body_was_read() -> None:
    """An agent that answers while a large payload still comes is heard."""
    async with raw_agent_early() as url:
        with pytest.raises(CallError) as caught:
            await send(url, payload={"text": "x" * 30_000_000})
    assert 413 == caught.value.status


def raw_agent_early() -> "_Early":
    """An agent that refuses as soon as it has read the head, and reads no more."""
    return _Early()


class _Early:
    async def __aenter__(self) -> str:
        self._released = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/x"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(whole("413 Too large", b"{}"))
        await self._released.wait()
        writer.close()

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        self._server.close()
        await self._server.wait_closed()


async def test_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    """An agent whose identity cannot be checked is unreachable, and sees no request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(tmp_path))
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(AgentUnreachable, match=r"is unreachable: .*certificate"):
            await send(f"https://127.0.0.1:{port}/x")
    assert b"" == b"".join(seen)


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    files = ["-subj", "/CN=127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    try:
        subprocess.run([*command, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    return certificate, key
