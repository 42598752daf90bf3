"""What a connection may take before the application sees it: headers, time, and its very place."""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.errors import problem
from orchestrator.config import Limits

_SEPARATORS = 4
"""Bytes beside a header's name and value."""
_LATE_HEAD = "The headers did not arrive in time"
_LATE_BODY = "The body did not arrive in time"


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with bounds: what is over them is answered, and the connection closed.

    A connection over ``max_connections``: 503. Headers over ``max_header_bytes`` or
    ``max_headers``, or trailers as large: 431. Headers that take longer than ``header_seconds``,
    or a body longer than ``body_seconds``: 408. One that sends nothing is closed without a word.
    Trailers are dropped.
    """

    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._field_bytes = 0
        """What came since the last of a body: of a head, of trailers, or around chunks."""
        self._is_head = True
        self._has_begun = False
        self._refusal: tuple[int, str] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def within(cls, limits: Limits) -> "type[BoundedProtocol]":
        """The protocol with these bounds."""
        return type(cls.__name__, (cls,), {"limits": limits})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is a place."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._end(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections; try again later")
            return
        self._within(self.limits.header_seconds, _LATE_HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count no time any more."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless it is a head without end, or trailers."""
        if self.transport.is_closing():
            return
        self._field_bytes += len(data)
        super().data_received(data)
        if self._field_bytes > self.limits.max_header_bytes:
            self._end(*self._too_large())
        elif self._timer is None and self._is_idle():
            # An empty line begins no request, and has ended the time that uvicorn gives for one.
            self._within(self.limits.header_seconds, _LATE_HEAD)

    def on_message_begin(self) -> None:
        """A request begins: its head has so long."""
        super().on_message_begin()
        self._has_begun = True
        if self._timer is None:
            self._within(self.limits.header_seconds, _LATE_HEAD)

    def on_headers_complete(self) -> None:
        """Its head is there, and its body has so long, while somebody reads it."""
        limits, head = self.limits, self.headers
        size = len(self.url) + sum(len(n) + len(v) + _SEPARATORS for n, v in head)
        self._stop()
        if size > limits.max_header_bytes or len(head) > limits.max_headers:
            self._refusal = self._too_large()
            raise ValueError(self._refusal[1])
        self._is_head, self._field_bytes = False, 0
        super().on_headers_complete()
        if not self.pipeline:
            self._within(limits.body_seconds, _LATE_BODY)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; nobody reads trailers."""
        if self._is_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Some of the body is there."""
        self._field_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._stop()
        self._is_head, self._field_bytes, self._has_begun = True, 0, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next one's turn: what lacks of its body has so long, as it is read from now on."""
        has_waited = bool(self.pipeline)
        super().on_response_complete()
        if has_waited and not self.pipeline and self.cycle.more_body:
            self._within(self.limits.body_seconds, _LATE_BODY)

    def keep_alive_no_more(self) -> None:
        """End the connection with the last answer of what has been asked on it."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed."""
        self._end(*(self._refusal or (HTTPStatus.BAD_REQUEST, msg)))

    def _too_large(self) -> tuple[int, str]:
        limits = self.limits
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, (
            f"At most {limits.max_headers} headers of {limits.max_header_bytes:,} bytes together "
            "are taken"
        )

    def _is_idle(self) -> bool:
        """Whether nothing that was asked is unanswered."""
        answering: RequestResponseCycle | None = self.cycle
        return self._is_head and (answering is None or answering.response_complete)

    def _within(self, seconds: float, otherwise: str) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, self._late, otherwise)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self, what: str) -> None:
        if not self._has_begun:
            self.transport.close()
        else:
            self._end(HTTPStatus.REQUEST_TIMEOUT, what)

    def _end(self, status: int, detail: str) -> None:
        """Answer, where that is not taken for another request's answer, and close."""
        self._stop()
        if self.transport.is_closing():
            return
        if self._may_answer():
            self.transport.write(_written(status, detail))
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether it is the turn of what is being read, and no answer to it has begun."""
        if self._is_head:
            return self._is_idle()
        answering: RequestResponseCycle | None = self.cycle
        return not (self.pipeline or answering is None or answering.response_started)


def answering_at_the_end(app: ASGIApp) -> ASGIApp:
    """The application; what outlasts the grace of a stop, and is given up, is answered with 503.

    uvicorn would say 500, as if something had broken.
    """

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            given_up = problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "This process stops, and had no time for an answer; ask again",
                {"Retry-After": "1"},
            )
            # Refused by the server where an answer has begun.
            with suppress(RuntimeError):
                await given_up(scope, receive, send)

    return answering


def _written(status: int, detail: str) -> bytes:
    answer = problem(status, detail, {"Connection": "close"})
    phrase = HTTPStatus(status).phrase.encode()
    lines = [b"HTTP/1.1 %d %b" % (status, phrase)]
    lines += [b"%b: %b" % (name, value) for name, value in answer.raw_headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(answer.body)
