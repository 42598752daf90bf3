"""How the agents of the fault suite answer: by the script that a task's payload carries."""

import asyncio
import contextlib
import email.utils
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp import web

HANG_SECONDS = 60.0
SLAY_SECONDS = 3.0
LATE_SECONDS = 1.5
LATE_PATIENCE_SECONDS = 120.0
HUGE_BYTES = 3_000_000
FORBIDDEN = "/forbidden"
"""Where redirects lead; nobody may ever go there."""


class Kind(StrEnum):
    """One way to answer a call."""

    OK = "ok"
    SLOW = "slow"
    LATER = "later"
    LOST = "lost"
    SLAY = "slay"
    BROKEN = "500"
    BUSY = "503, Retry-After in seconds"
    OVERLOADED = "429, Retry-After as a date"
    HANG = "hang"
    DRIP = "drip"
    CONTINUES = "endless 1xx"
    GARBAGE = "garbage"
    SHORT = "body shorter than said"
    RESET = "reset"
    RESET_MIDWAY = "reset in the body"
    REJECTED = "422"
    NOT_JSON = "not JSON"
    HUGE = "huge body"
    BOMB = "gzip bomb"
    REDIRECT = "redirect"


ROWS = {
    **dict.fromkeys((Kind.BROKEN,), 9),
    **dict.fromkeys((Kind.BUSY, Kind.OVERLOADED), 10),
    **dict.fromkeys((Kind.HANG, Kind.DRIP, Kind.CONTINUES), 11),
    **dict.fromkeys((Kind.GARBAGE, Kind.NOT_JSON, Kind.SHORT), 12),
    **dict.fromkeys((Kind.RESET, Kind.RESET_MIDWAY), 12),
    **dict.fromkeys((Kind.HUGE, Kind.BOMB), 13),
    Kind.REDIRECT: 14,
    Kind.LOST: 26,
    Kind.SLAY: 29,
}
"""The row of the fault matrix that a kind belongs to."""

AGAIN = (
    *(Kind.BROKEN, Kind.BUSY, Kind.OVERLOADED, Kind.HANG, Kind.DRIP, Kind.CONTINUES),
    *(Kind.GARBAGE, Kind.SHORT, Kind.RESET, Kind.RESET_MIDWAY, Kind.LOST),
)
"""After these a task is tried again."""
FOR_GOOD = (Kind.REJECTED, Kind.NOT_JSON, Kind.HUGE, Kind.BOMB, Kind.REDIRECT)
"""With these it has failed."""

_BOMB = gzip.compress(b'"' + b"0" * 50_000_000 + b'"', 9)


async def carry_out(kind: Kind, request: web.Request, result: dict[str, Any]) -> web.StreamResponse:
    """Answer a call in one way; the result is that of the task's work."""
    if kind in _PLAIN:
        return _PLAIN[kind](result)
    return await _ODD[kind](request, result)


def _ok(result: dict[str, Any]) -> web.Response:
    return web.json_response(result)


def _overloaded(_: dict[str, Any]) -> web.Response:
    soon = email.utils.formatdate(time.time() + 2, usegmt=True)
    return web.Response(status=HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": soon})


def _bomb(_: dict[str, Any]) -> web.Response:
    headers = {"Content-Encoding": "gzip"}
    return web.Response(body=_BOMB, headers=headers, content_type="application/json")


_PLAIN: dict[Kind, Callable[[dict[str, Any]], web.Response]] = {
    Kind.OK: _ok,
    Kind.BROKEN: lambda _: web.Response(status=500, text="broken"),
    Kind.BUSY: lambda _: web.Response(status=503, headers={"Retry-After": "1"}),
    Kind.OVERLOADED: _overloaded,
    Kind.REJECTED: lambda _: web.Response(status=422, text="no such thing"),
    Kind.NOT_JSON: lambda _: web.Response(text="<html>", content_type="text/html"),
    Kind.HUGE: lambda _: web.json_response({"text": "x" * HUGE_BYTES}),
    Kind.BOMB: _bomb,
    Kind.REDIRECT: lambda _: web.Response(status=307, headers={"Location": FORBIDDEN}),
}


async def _slow(_: web.Request, result: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(0.2 + result["number"] % 10 / 10)
    return _ok(result)


async def _slay(_: web.Request, result: dict[str, Any]) -> web.StreamResponse:
    # Time for the runner to kill whoever calls.
    await asyncio.sleep(SLAY_SECONDS)
    return _ok(result)


async def _hang(_: web.Request, result: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(HANG_SECONDS)
    return _ok(result)


async def _drip(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _turn in range(int(HANG_SECONDS * 5)):
        await response.write(b" ")
        await asyncio.sleep(0.2)
    return response


async def _later(request: web.Request, result: dict[str, Any]) -> web.StreamResponse:
    url = request.headers.get("X-Completion-URL")
    if url is None:
        return _ok(result)
    keep(_complete(url, result))
    return web.json_response({"job": result["number"]}, status=HTTPStatus.ACCEPTED)


async def _complete(url: str, result: dict[str, Any]) -> None:
    """Post the result until it has been taken or is wanted no more."""
    end = time.monotonic() + LATE_PATIENCE_SECONDS
    await asyncio.sleep(LATE_SECONDS)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        while time.monotonic() < end:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.post(url, json={"result": result}) as answer:
                    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                        return
            await asyncio.sleep(0.5)


async def _continues(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    for _turn in range(int(HANG_SECONDS * 5)):
        if request.transport is None:
            break
        request.transport.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await asyncio.sleep(0.2)
    return web.Response()


def _raw(*pieces: bytes, abort: bool = False) -> Callable[..., Awaitable[web.StreamResponse]]:
    """An answer that is written to the connection as it is, which then ends."""

    async def write(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        if request.transport is not None:
            for piece in pieces:
                request.transport.write(piece)
            await asyncio.sleep(0.01)
            request.transport.abort() if abort else request.transport.close()
        return web.Response()

    return write


_HALF = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"a": '
_ODD: dict[Kind, Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]] = {
    Kind.SLOW: _slow,
    Kind.SLAY: _slay,
    Kind.HANG: _hang,
    Kind.DRIP: _drip,
    Kind.LATER: _later,
    Kind.CONTINUES: _continues,
    Kind.LOST: _raw(abort=True),
    Kind.RESET: _raw(abort=True),
    Kind.GARBAGE: _raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n"),
    Kind.SHORT: _raw(_HALF),
    Kind.RESET_MIDWAY: _raw(_HALF, abort=True),
}

_kept = set[asyncio.Task[None]]()


def keep(work: Any) -> None:
    """Let it run beside, until it has ended."""
    task = asyncio.create_task(work)
    _kept.add(task)
    task.add_done_callback(_kept.discard)


def as_json(event: dict[str, Any]) -> bytes:
    """One line of a record."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
