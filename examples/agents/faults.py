"""Faults on request: an agent that is slow, fails or answers nonsense, as its caller asks."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

_LARGE_BYTES = 16 * 1024 * 1024
_UNAVAILABLE = 503
_OK = 200
_WITHOUT_BODY = frozenset({204, 205, 304})
_HTML = "<!doctype html><title>Fault</title><h1>This is no JSON</h1>"


@dataclass(frozen=True)
class Attempt:
    """Which attempt of which call a request is, as its headers say."""

    key: str | None
    number: int

    @classmethod
    def of(cls, request: Request) -> Self:
        """Read ``Idempotency-Key`` and ``X-Attempt``; a request without a number is the first."""
        number = request.headers.get("x-attempt", "")
        first = 1
        known = number.isascii() and number.isdigit() and len(number) < len("1000000")
        return cls(request.headers.get("idempotency-key"), int(number) if known else first)

    def chance(self) -> float:
        """Give a number from 0 to below 1 that depends on the call and the attempt alone."""
        digest = hashlib.sha256(f"{self.key or ''}:{self.number}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48


class Fault(BaseModel):
    """What goes wrong, how often and for which attempts.

    A fault strikes an attempt or leaves it alone as a whole. A struck attempt first waits for
    ``delay`` seconds; then ``status`` or ``body`` replace the answer. A fault with neither of the
    three, and that does not only make the agent look unhealthy, answers 503.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    delay: float = Field(0, ge=0, le=60)
    status: int | None = Field(None, ge=200, le=599)
    retry_after: int | None = Field(None, ge=0, le=3600)
    failure_rate: float = Field(1, ge=0, le=1)
    times: int | None = Field(None, ge=0, le=1000)
    body: Literal["html", "large", "truncated"] | None = None
    health: bool = True

    def strikes(self, attempt: Attempt) -> bool:
        """Tell whether an attempt meets this fault; for the same attempt the answer is the same."""
        early = self.times is None or attempt.number <= self.times
        return early and attempt.chance() < self.failure_rate

    def response(self) -> Response | None:
        """Give what replaces the answer of a struck attempt, or None if the agent answers."""
        if self.body is not None:
            return self._strange(self.status or _OK)
        if self.status is None and (self.delay > 0 or not self.health):
            return None
        status = self.status or _UNAVAILABLE
        if status in _WITHOUT_BODY:
            return Response(status_code=status, headers=self._headers())
        return JSONResponse({"detail": "Fault on request"}, status, self._headers())

    def _strange(self, status: int) -> Response:
        if self.body == "html":
            return HTMLResponse(_HTML, status, self._headers())
        if self.body == "truncated":
            return _BrokenOff({"detail": "The connection closes within this text"}, status)
        return JSONResponse({"filler": "x" * _LARGE_BYTES}, status, self._headers())

    def _headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class _BrokenOff(JSONResponse):
    """Announces its whole length and sends half of it; the server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})


class Delays:
    """Waits that a closing server cuts short."""

    def __init__(self) -> None:
        self._closing = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until the server closes."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self._closing.wait(), seconds)
            except TimeoutError:
                return

    def close(self) -> None:
        """End all waits, present and future."""
        self._closing.set()
