"""What each kind of answer means: success, another attempt, or none."""

import asyncio
import json
from typing import Any

import pytest

from orchestrator.call_errors import (
    AgentDisconnected,
    AgentFailed,
    AgentOverloaded,
    AgentRejected,
    CallError,
    PermanentCallError,
    ReplyUnreadable,
    RetryableCallError,
)
from orchestrator.transports import AgentResponse
from tests.support.agents import Agent, Reply
from tests.unit.orchestrator.transports.raw_agent import raw_agent, send, whole


async def refusal(answer: bytes) -> CallError:
    """The error that an answer becomes; the request is sent exactly once."""
    async with raw_agent(answer) as agent:
        with pytest.raises(CallError) as caught:
            await send(agent.url)
    assert 1 == len(agent.requests)
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"pages": 3}', {"pages": 3}),
        (201, b"[1, 2.5, null]", [1, 2.5, None]),
        (202, b'"text"', "text"),
        (203, ' {"a": "\u00e4"}\n'.encode(), {"a": "ä"}),
        (200, b"null", None),
        (200, b"", None),
        (204, b"", None),
        (299, b"0", 0),
    ],
)
async def test_2xx_is_success(status: int, body: bytes, expected: object) -> None:
    """The body is decoded JSON, None when there is none."""
    async with raw_agent(whole(f"{status} Fine", body)) as agent:
        assert AgentResponse(status, expected) == await send(agent.url)


@pytest.mark.parametrize("content_type", ["text/plain", "application/problem+json", "\xff/;;", ""])
async def test_the_content_type_does_not_matter(content_type: str) -> None:
    """What is JSON is taken as JSON, whatever it is called."""
    async with raw_agent(whole("200 OK", b"[1]", f"Content-Type: {content_type}")) as agent:
        assert AgentResponse(200, [1]) == await send(agent.url)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (101, AgentRejected),
        (300, AgentRejected),
        (304, AgentRejected),
        (400, AgentRejected),
        (401, AgentRejected),
        (404, AgentRejected),
        (409, AgentRejected),
        (410, AgentRejected),
        (422, AgentRejected),
        (499, AgentRejected),
        (408, AgentFailed),
        (425, AgentFailed),
        (429, AgentOverloaded),
        (500, AgentFailed),
        (501, AgentFailed),
        (503, AgentFailed),
        (599, AgentFailed),
        (999, AgentFailed),
    ],
)
async def test_every_other_status_is_an_error(status: int, kind: type[CallError]) -> None:
    """408, 425, 429 and 5xx are worth a retry, all others not."""
    body = b"" if status < 200 or status == 304 else b'{"detail": "no"}'
    error = await refusal(whole(f"{status} Odd", body))
    assert (kind, status) == (type(error), error.status)
    retryable = status in {408, 425, 429} or status >= 500
    assert isinstance(error, RetryableCallError if retryable else PermanentCallError)


async def test_an_error_says_who_what_and_why() -> None:
    """The message is for people, the excerpt is what the agent said."""
    async with raw_agent(whole("422 Unprocessable", b'{"detail": "no file"}')) as agent:
        with pytest.raises(AgentRejected) as caught:
            await send(agent.url)
    assert f"reader at {agent.url} answered 422 Unprocessable" == str(caught.value)
    assert '{"detail": "no file"}' == caught.value.excerpt


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_redirects_are_not_followed(status: str) -> None:
    """Wherever an agent points to, nobody there is called."""
    async with (
        raw_agent(whole("200 OK", b"{}")) as target,
        raw_agent(whole(status, b"", f"Location: {target.url}")) as agent,
    ):
        with pytest.raises(AgentRejected):
            await send(agent.url)
    assert [] == target.requests


@pytest.mark.parametrize(
    ("value", "expected"), [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None)]
)
@pytest.mark.parametrize("status", ["429 Slow down", "503 Busy"])
async def test_retry_after_is_told(status: str, value: str, expected: float | None) -> None:
    """Seconds and dates are read, and what is neither is none."""
    error = await refusal(whole(status, b"", f"Retry-After: {value}"))
    assert expected == error.retry_after


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e400]",
        b"[-1e999]",
        b'"\xff\xfe"',
        b'"\\ud800"',
        b'"\x01"',
        b"\xef\xbb\xbf{}",
        b" ",
        b"[" * 5000 + b"]" * 5000,
        b"9" * 5000,
    ],
)
async def test_what_is_not_json_is_unreadable(body: bytes) -> None:
    """Broken, foreign and bottomless bodies are permanent errors with an excerpt at most."""
    error = await refusal(whole("200 OK", body))
    assert isinstance(error, ReplyUnreadable)
    assert 200 == error.status
    assert len(error.excerpt or "") <= 300


async def test_a_refusal_that_breaks_off_is_judged_by_its_status() -> None:
    """The status has arrived, so the rest of the body does not matter."""
    error = await refusal(b"HTTP/1.1 404 Gone\r\nContent-Length: 100\r\n\r\n")
    assert (AgentRejected, 404) == (type(error), error.status)


async def test_a_refusal_whose_body_never_comes_is_judged_by_its_status() -> None:
    """Nor is it waited for until the attempt's timeout."""
    answer = b"HTTP/1.1 429 Slow\r\nRetry-After: 9\r\nContent-Length: 100\r\n\r\n"
    async with raw_agent(answer, keep_open=True) as agent, asyncio.timeout(8):
        with pytest.raises(AgentOverloaded) as caught:
            await send(agent.url, timeout=10)
    assert 9.0 == caught.value.retry_after


async def test_a_refusal_in_a_broken_encoding_is_judged_by_its_status() -> None:
    """An unreadable error page leaves only the excerpt out."""
    error = await refusal(whole("403 No", b"no gzip", "Content-Encoding: gzip"))
    assert (AgentRejected, None) == (type(error), error.excerpt)


@pytest.mark.parametrize(
    "body",
    [
        b"a\x1b[31mb\x00c\r\nd\te",
        "a\x9b31mb\u2028c\u202ed\u2066e".encode(),
        b"a\x7fb\x08\x08c",
        b"\xff\xfe a",
    ],
)
async def test_excerpts_hold_no_control_characters(body: bytes) -> None:
    """Nothing that an agent says can steer a terminal or break a line."""
    excerpt = (await refusal(whole("500 No", body))).excerpt
    assert excerpt is not None
    assert excerpt.isprintable()


async def test_reasons_hold_no_control_characters() -> None:
    """The reason phrase is cleaned like the excerpt."""
    error = await refusal(whole("500 \x1b[31mrouge \xe9\x9b", b""))
    assert str(error).isprintable()


async def test_messages_can_always_be_written() -> None:
    """Bytes outside UTF-8 in a header leave no half characters in the message."""
    error = await refusal(whole("200 OK", b"x", "Content-Type: \xe9/\xff"))
    assert str(error).encode()


async def test_excerpts_are_short() -> None:
    """300 characters say enough, in any script."""
    excerpt = (await refusal(whole("500 No", "ä€𝄞".encode() * 5000))).excerpt
    assert "ä€𝄞" * 100 == excerpt


async def test_the_request_is_json_with_its_headers() -> None:
    """The payload is the body, the headers are those of the request."""
    async with Agent() as agent:
        payload = {"text": "Grüße 𝄞", "n": [1, 2.5, None, True]}
        await send(f"{agent.url}/a?b=c", payload=payload, headers={"X-Task-ID": "t"})
    [call] = agent.calls
    assert ("/a?b=c", payload, "t") == (call.path, call.body, call.headers["X-Task-ID"])
    expected = ("application/json", "application/json", "orchestration-agent")
    names = ("Content-Type", "Accept", "User-Agent")
    assert expected == tuple(call.headers[name] for name in names)


async def test_bodies_are_sent_unescaped() -> None:
    """Text travels as UTF-8, and the agent reads back what was sent."""
    async with Agent(Reply(body={"ok": True})) as agent:
        await send(agent.url, payload={"\u2028": "</script>\x00"})
    assert {"\u2028": "</script>\x00"} == agent.calls[0].body
    assert json.dumps(agent.calls[0].body)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"headers": {"X": "a\nb"}}, "control character"),
        ({"headers": {"X\r\nY": "a"}}, "control character"),
        ({"headers": {"X": "a\x00"}}, "control character"),
        ({"payload": {"a": "\ud800"}}, "surrogates not allowed"),
    ],
)
async def test_what_cannot_be_written_is_not_sent(changes: dict[str, Any], text: str) -> None:
    """Headers that would break out of their line, and texts that are none, are permanent errors."""
    async with raw_agent(whole("200 OK", b"{}")) as agent:
        with pytest.raises(AgentRejected, match=text):
            await send(agent.url, **changes)
    assert [] == agent.requests


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/x",
        "http:///x",
        "http://h:99999/",
        "http://[::1/",
        "http://a..b/",
        f"http://{'a' * 70}/",
    ],
)
async def test_an_impossible_address_is_permanent(url: str) -> None:
    """No attempt will reach it."""
    with pytest.raises(AgentRejected, match="cannot be called"):
        await send(url)


async def test_a_truncated_answer_after_success_is_no_success() -> None:
    """2xx counts only when the body is complete."""
    with pytest.raises(AgentDisconnected):
        raise await refusal(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}")
