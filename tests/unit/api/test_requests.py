"""Reading requests: bodies, preferences, keys and trace contexts."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from api.requests import (
    fingerprint,
    idempotency_key,
    json_object,
    task_id_of,
    traceparent,
    wait_seconds,
)
from orchestrator.errors import PayloadTooLarge
from orchestrator.models import TaskRequest

MAX_BYTES = 1000


class Body:
    """A request's body, chunk by chunk; counts how many were taken."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = list(chunks)
        self.taken = 0

    async def __call__(self) -> dict[str, Any]:
        """The next chunk, as a server hands it over."""
        chunk = self.chunks[self.taken]
        self.taken += 1
        more = self.taken < len(self.chunks)
        return {"type": "http.request", "body": chunk, "more_body": more}


def request(body: Body | bytes = b"", headers: dict[str, str] | None = None) -> Request:
    """A request with this body and these headers; one named a, a2 ... is sent several times."""
    raw = [
        (name.rstrip("2").lower().encode(), value.encode("latin-1"))
        for name, value in (headers or {}).items()
    ]
    receive = body if isinstance(body, Body) else Body([body])
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


async def test_a_body_is_json() -> None:
    """Decoded as it is, in whatever chunks it comes."""
    body = json.dumps({"text": "Grüße 𝄞", "n": [1, 2.5, None]}, ensure_ascii=False).encode()
    chunks = Body(body[index : index + 1] for index in range(len(body)))
    assert json.loads(body) == await json_object(request(chunks), MAX_BYTES)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=utf-8"],
)
async def test_json_by_its_name(content_type: str) -> None:
    """In any case, with parameters, or without a name at all."""
    for headers in ({"Content-Type": content_type}, {}):
        assert {} == await json_object(request(b"{}", headers), MAX_BYTES)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json5"],
)
async def test_other_content_types_are_refused(content_type: str) -> None:
    """415 says what to send."""
    with pytest.raises(HTTPException) as caught:
        await json_object(request(b"{}", {"Content-Type": content_type}), MAX_BYTES)
    expected = (415, f"Content-Type is {content_type}; send application/json")
    assert expected == (caught.value.status_code, caught.value.detail)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b"{} {}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e400}',
        b'{"a": [-1e400]}',
        b'{"a": ' + b"9" * 400 + b".0}",
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'{"a": "\x00"}',
        b"\xff\xfe{\x00}\x00",
        b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
async def test_what_is_not_json_is_refused(body: bytes) -> None:
    """Broken, foreign, infinite and bottomless bodies are 422, not a failure later on."""
    with pytest.raises(HTTPException) as caught:
        await json_object(request(body), MAX_BYTES)
    assert 422 == caught.value.status_code
    assert caught.value.detail.startswith("The body is not JSON: ")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"[]", "an array"),
        (b"null", "null"),
        (b'"a"', "a string"),
        (b"1", "a number"),
        (b"1.5", "a number"),
        (b"true", "a boolean"),
    ],
)
async def test_other_json_is_refused(body: bytes, found: str) -> None:
    """A task is an object."""
    with pytest.raises(HTTPException, match=f"The body is {found}; send a JSON object") as caught:
        await json_object(request(body), MAX_BYTES)
    assert 422 == caught.value.status_code


@given(st.binary(max_size=50))
def test_any_body_is_json_or_refused(body: bytes) -> None:
    """No body makes the reader fail in another way."""

    async def read() -> None:
        try:
            json.dumps(await json_object(request(body), MAX_BYTES), allow_nan=False).encode()
        except HTTPException as error:
            assert 422 == error.status_code  # noqa: PT017

    coroutine = read()
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def test_a_body_of_exactly_the_cap() -> None:
    """The cap itself is allowed."""
    body = {"a": "x" * (MAX_BYTES - 9)}
    assert body == await json_object(request(json.dumps(body).encode()), MAX_BYTES)


async def test_a_body_over_the_cap_is_not_read_on() -> None:
    """Reading stops at the chunk that passes the cap."""
    body = Body([b"x" * 400] * 100)
    with pytest.raises(PayloadTooLarge, match="1,200 bytes are too many; at most 1,000"):
        await json_object(request(body), MAX_BYTES)
    assert 3 == body.taken


async def test_an_announced_excess_is_not_read_at_all() -> None:
    """Content-Length is enough to refuse."""
    body = Body([b"{}"])
    with pytest.raises(PayloadTooLarge, match="1,001 bytes"):
        await json_object(request(body, {"Content-Length": "1001"}), MAX_BYTES)
    assert 0 == body.taken


async def test_an_announcement_that_lies_does_not_help() -> None:
    """The bytes that come are counted."""
    with pytest.raises(PayloadTooLarge):
        await json_object(request(b"x" * 1001, {"Content-Length": "2"}), MAX_BYTES)


@pytest.mark.parametrize("length", ["", "-1", "abc", "²", "1e9"])
async def test_an_announcement_that_is_no_number_is_ignored(length: str) -> None:
    """The server refuses such requests before; nothing fails here."""
    assert {} == await json_object(request(b"{}", {"Content-Length": length}), MAX_BYTES)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 0),
        ({"Prefer": "wait=10"}, 10),
        ({"Prefer": "respond-async, wait=10"}, 10),
        ({"Prefer": "respond-async; wait=10"}, 10),
        ({"Prefer": "WAIT = 10"}, 10),
        ({"Prefer": 'wait="10"'}, 10),
        ({"Prefer": "wait=0"}, 0),
        ({"Prefer": "wait=60"}, 60),
        ({"Prefer": "wait=61"}, 60),
        ({"Prefer": "wait=99999999999999999999"}, 60),
        ({"Prefer": "wait=-1"}, 0),
        ({"Prefer": "wait="}, 0),
        ({"Prefer": "wait"}, 0),
        ({"Prefer": "await=10"}, 0),
        ({"Prefer": "no-wait=10"}, 0),
        ({"Prefer": "return=minimal"}, 0),
        ({"Prefer": "return=minimal", "Prefer2": "wait=5"}, 5),
        ({"Prefer": "wait=3, wait=9"}, 3),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], expected: int) -> None:
    """``wait`` anywhere among the preferences, at most a minute; the first counts."""
    assert expected == wait_seconds(request(headers=headers))


def test_how_long_to_wait_where_nothing_is_said() -> None:
    """As long as who asks would otherwise; 0 is something that is said."""
    assert 30 == wait_seconds(request(), 30)
    assert 0 == wait_seconds(request(headers={"Prefer": "wait=0"}), 30)


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_any_preference_is_understood_or_not(value: str) -> None:
    """No header makes the reader fail."""
    assert 0 <= wait_seconds(request(headers={"Prefer": value})) <= 60


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        ("  abc ", "abc"),
        ('"', '"'),
        ('"a', '"a'),
        ('a"b', 'a"b'),
        ("x" * 255, "x" * 255),
    ],
)
def test_an_idempotency_key(header: str, expected: str) -> None:
    """With the quotes of its draft standard or without."""
    assert expected == idempotency_key(request(headers={"Idempotency-Key": header}))


def test_no_idempotency_key() -> None:
    """A request may have none."""
    assert idempotency_key(request()) is None


@pytest.mark.parametrize("header", ["", " ", '""', "x" * 256])
def test_an_idempotency_key_has_1_to_255_characters(header: str) -> None:
    """An empty one would make all requests one task."""
    with pytest.raises(HTTPException, match="1 to 255 are allowed") as caught:
        idempotency_key(request(headers={"Idempotency-Key": header}))
    assert 422 == caught.value.status_code


def test_a_key_stands_for_one_task_of_one_tenant() -> None:
    """Equal keys are equal tasks; other tenants and other keys are others."""
    ids = {task_id_of(*pair) for pair in [("k", "a"), ("k", "b"), ("l", "a"), ("a", "k")]}
    assert 4 == len(ids)
    assert task_id_of("k", "a") in ids


def test_task_ids_of_keys_stay_what_they_are() -> None:
    """A new version must find the tasks of the old one."""
    assert "6edd6229-9b45-5cbb-8b70-2f4b96514666" == task_id_of("key", "default")


BASE = '{"pattern": "p", "payload": {"a": 1, "b": {"c": [1, 2], "d": null}}}'


@pytest.mark.parametrize(
    "same",
    [
        '{"payload":{"b":{"d":null,"c":[1,2]},"a":1},"pattern":"p"}',
        BASE.replace(" ", "\n  "),
        BASE.replace('"p"', '"\\u0070"'),
        BASE.replace("}}}", '}}, "priority": null, "tenant": "default"}'),
    ],
)
def test_the_same_request_has_the_same_fingerprint(same: str) -> None:
    """Order of keys, blanks, escapes and defaults that are spelt out do not count."""
    base = fingerprint(TaskRequest.model_validate_json(BASE))
    assert base == fingerprint(TaskRequest.model_validate_json(same))


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("[1, 2]", "[2, 1]"),
        BASE.replace('"a": 1', '"a": "1"'),
        BASE.replace('"a": 1', '"a": true'),
        BASE.replace("null", "0"),
        BASE.replace('"p"', '"q"'),
        BASE.replace("}}}", '}}, "priority": 3}'),
        BASE.replace("}}}", '}}, "metadata": {"x": 1}}'),
    ],
)
def test_another_request_has_another_fingerprint(other: str) -> None:
    """Every value counts, and so does the order of a list."""
    base = fingerprint(TaskRequest.model_validate_json(BASE))
    assert base != fingerprint(TaskRequest.model_validate_json(other))


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_context_is_passed_on() -> None:
    """As the caller sent it."""
    assert TRACE == traceparent(request(headers={"traceparent": TRACE}))


@pytest.mark.parametrize("header", ["", "x", TRACE.upper(), TRACE + "-x", f" {TRACE}x", TRACE[1:]])
def test_what_is_no_trace_context_is_dropped(header: str) -> None:
    """A broken one is as good as none."""
    assert traceparent(request(headers={"traceparent": header})) is None
