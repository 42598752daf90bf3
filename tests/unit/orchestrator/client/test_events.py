"""Server-Sent Events: the parser, and streams that break."""

import pytest

from orchestrator.client import (
    ApiUnreachable,
    AsyncOrchestratorClient,
    Event,
    NotFound,
    OrchestratorClient,
    UnexpectedAnswer,
)
from orchestrator.client.events import Parser
from tests.support.api import Answer, Heard, problem, scripted

STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}
OVER = Answer(204)
TEXT = (
    ': hello\nretry: 10\nid: 1\nevent: queued\ndata: {"a": 1}\n\n'
    "id: 2\r\ndata: one\r\ndata:two\r\n\r\nid: 3\rdata: ä\r\rid: 4\n\nevent: cut\ndata: x\n"
)  # fmt: skip
EVENTS = [
    Event("1", "queued", {"a": 1}),
    Event("2", "message", "one\ntwo"),
    Event("3", "message", "ä"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_parsed_however_the_bytes_come(size: int) -> None:
    """All ends of lines, comments, several lines of data; what is unfinished is no event."""
    parser, content = Parser(), TEXT.encode()
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    assert EVENTS == [event for piece in pieces for event in parser.feed(piece)]
    assert ("4", 0.01) == (parser.last_id, parser.retry_seconds)


def event(number: int) -> bytes:
    """One event."""
    return f"retry: 1\nid: {number}\nevent: e\ndata: {number}\n\n".encode()


def resumed(request: Heard) -> Answer:
    """Two events for each connection, the second cut in the middle, until there are 20."""
    last = int(request.headers.get("last-event-id", "0"))
    if last == 20:
        return OVER
    text = event(last + 1) + event(last + 2)
    return Answer(200, text[: -1 - last % 7], STREAM, cut=last % 2 == 0)


def test_a_stream_that_breaks_is_taken_up_where_it_broke() -> None:
    """Each event comes once, in order, until the API says that all is over."""
    with scripted() as api, OrchestratorClient(api.url) as mine:
        api.decide = resumed
        found = [each.data for each in mine.events("t/1")]
    assert list(range(1, 21)) == found
    assert "/status/t%2F1/events" == api.heard[0].path
    assert "text/event-stream" == api.heard[0].headers["accept"]


async def test_the_same_by_asyncio() -> None:
    """Each event once."""
    with scripted() as api:
        api.decide = resumed
        async with AsyncOrchestratorClient(api.url) as mine:
            found = [each.data async for each in mine.batch_events("b", last_event_id="10")]
    assert list(range(11, 21)) == found


def test_what_is_not_there_is_an_error() -> None:
    """Not a stream that is tried again."""
    with (
        scripted(problem(404, "Task 't' is not known")) as api,
        OrchestratorClient(api.url) as mine,
        pytest.raises(NotFound, match="is not known"),
    ):
        list(mine.events("t"))


def test_what_is_no_stream_is_said_so() -> None:
    """A web page, for example."""
    with (
        scripted(Answer(200, b"<html>", {"Content-Type": "text/html"})) as api,
        OrchestratorClient(api.url) as mine,
        pytest.raises(UnexpectedAnswer),
    ):
        list(mine.events("t"))


def test_a_stream_that_stays_broken_ends_in_an_error() -> None:
    """After the patience is over."""
    with (
        scripted(Answer(200, b"", STREAM, cut=True)) as api,
        OrchestratorClient(api.url, retry_for=0) as mine,
        pytest.raises(ApiUnreachable),
    ):
        list(mine.events("t"))
