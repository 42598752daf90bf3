"""Server-Sent Events (the WHATWG's HTML standard, 9.2), and how a stream is taken up again."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from orchestrator.client.attempts import LONGEST_PAUSE_SECONDS, Terms, broken, pause_after
from orchestrator.client.calls import Call, failure, unexpected
from orchestrator.client.errors import ApiUnreachable, RateLimited, Unavailable

EVENT_STREAM = "text/event-stream"
FIRST_PAUSE_SECONDS = 1.0
SILENCE_SECONDS = 90.0
"""After so long without a byte a connection is taken for broken."""


@dataclass(frozen=True)
class Event:
    """Something that happened: its kind, its data (of JSON), and the id by which one resumes."""

    id: str
    event: str
    data: Any


def is_stream(response: httpx.Response) -> bool:
    """Whether events will come; anything else is read whole."""
    kind: str = response.headers.get("content-type", "")
    return response.is_success and kind.startswith(EVENT_STREAM)


class Parser:
    """Bytes in, events out."""

    def __init__(self) -> None:
        self.last_id = ""
        self.retry_seconds: float | None = None
        self.begin()

    def begin(self) -> None:
        """Forget what a broken connection left unfinished."""
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode
        self._rest = ""
        self._id, self._kind, self._data = self.last_id, "", list[str]()

    def feed(self, content: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        self._rest += self._decode(content)
        while (line := self._line()) is not None:
            if line:
                self._field(line)
            elif event := self._dispatched():
                yield event

    def _line(self) -> str | None:
        ends = [at for at in (self._rest.find("\n"), self._rest.find("\r")) if at >= 0]
        # A CR at the end may be the half of a CRLF.
        if not ends or (self._rest[min(ends)] == "\r" and min(ends) + 1 == len(self._rest)):
            return None
        end = min(ends)
        width = 2 if self._rest.startswith("\r\n", end) else 1
        line, self._rest = self._rest[:end], self._rest[end + width :]
        return line

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_seconds = int(value[:9]) / 1000

    def _dispatched(self) -> Event | None:
        self.last_id = self._id
        data, kind = "\n".join(self._data), self._kind
        had_data = bool(self._data)
        self._kind, self._data = "", []
        return Event(self.last_id, kind or "message", _value(data)) if had_data else None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


class Following:
    """One stream over all its connections: what to ask for next, and when.

    Args:
        path: of the events.
        last_event_id: where to go on; empty from the beginning.
        terms: how long a stream that stays broken is tried again.
    """

    def __init__(self, path: str, last_event_id: str, terms: Terms) -> None:
        self._parser = Parser()
        self._parser.last_id = last_event_id
        self._path, self._terms = path, terms
        self._failures, self._opened, self._broken_since = 0, terms.clock(), terms.clock()

    def call(self) -> Call[None]:
        """The request that goes on where the connection before ended."""
        self._parser.begin()
        self._opened = self._terms.clock()
        headers = {"Accept": EVENT_STREAM, "Cache-Control": "no-store"}
        if last := self._parser.last_id:
            headers["Last-Event-ID"] = last
        return Call("GET", self._path, lambda _: None, headers=headers, wait=SILENCE_SECONDS)

    def accepts(self, response: httpx.Response) -> bool:
        """Whether the response is a stream, rather than the word that all is over (204).

        Raises:
            ClientError: it is neither.
        """
        if response.status_code == httpx.codes.NO_CONTENT:
            return False
        error = failure(Call("GET", self._path, lambda _: None), response)
        if error is not None:
            raise error
        if not is_stream(response):
            raise unexpected(response)
        return True

    def feed(self, content: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        if self._terms.clock() - self._opened > LONGEST_PAUSE_SECONDS:
            self._failures = 0
        for event in self._parser.feed(content):
            self._failures = 0
            yield event

    def pause(self, error: Exception | None) -> float:
        """Seconds until the next connection, after an end or an error.

        Raises:
            ClientError: the error, if it stays or is not one that passes.
        """
        if error is None:
            return self._parser.retry_seconds or FIRST_PAUSE_SECONDS
        if isinstance(error, httpx.RequestError):
            error = broken(error)
        if not isinstance(error, ApiUnreachable | Unavailable | RateLimited):
            raise error
        seconds, now = pause_after(error, self._failures), self._terms.clock()
        if not self._failures:
            self._broken_since = now
        self._failures += 1
        if now + seconds - self._broken_since > self._terms.retry_for:
            raise error
        return seconds
