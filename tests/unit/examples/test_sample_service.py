"""The HTTP side of the sample agents."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from examples.agents.app import create_app
from examples.agents.replay import Answers

ROOMS = "/realtime_coordination_agent/coordinate"
CACHE = "/caching_agent/cache"


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a fresh application."""
    transport = httpx.ASGITransport(app=create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://agents") as client:
        yield client


@pytest.mark.parametrize("body", ["", "no json", "{", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000])
async def test_body_that_is_no_json_is_400(client: httpx.AsyncClient, body: str) -> None:
    """What cannot be read as JSON, or not be repeated as JSON, is a bad request."""
    response = await client.post(CACHE, content=body)
    expected = (400, "The body is not JSON")
    assert expected == (response.status_code, response.json()["detail"][:20])


async def test_json_that_is_no_object_is_422(client: httpx.AsyncClient) -> None:
    """A payload is an object."""
    response = await client.post(CACHE, json=[1])
    expected = {"detail": "Expected a JSON object, not list"}
    assert (422, expected) == (response.status_code, response.json())


async def test_body_over_the_limit_is_413(client: httpx.AsyncClient) -> None:
    """Nobody fills the memory with one request."""
    response = await client.post(CACHE, content=b" " * (16 * 1024 * 1024 + 1))
    expected = 413
    assert expected == response.status_code


async def test_invalid_field_is_named(client: httpx.AsyncClient) -> None:
    """The detail tells the field and what it takes."""
    response = await client.post(
        "/assessment_agent/generate",
        json={"text": "Rain falls.", "questions": 99},
    )
    expected = "questions: Input should be less than or equal to 20"
    assert (422, expected) == (response.status_code, response.json()["detail"])


async def test_unknown_path_is_404_in_json(client: httpx.AsyncClient) -> None:
    """Errors of routing are JSON too."""
    response = await client.post("/content_ingestion_agent/nothing", json={})
    expected = (404, {"detail": "Not Found"})
    assert expected == (response.status_code, response.json())


async def test_wrong_method_is_405(client: httpx.AsyncClient) -> None:
    """An action takes POST alone."""
    expected = 405
    assert expected == (await client.get(CACHE)).status_code


async def test_same_key_has_one_effect(client: httpx.AsyncClient) -> None:
    """A repeated call gets the first answer and does not act again."""
    key = {"Idempotency-Key": "call-1"}
    join = {"action": "join", "room": "one effect", "user_id": "ada"}
    first = await client.post(ROOMS, json=join, headers=key)
    await client.post(ROOMS, json=join | {"action": "leave"})
    second = await client.post(ROOMS, json=join, headers=key)
    members = await client.post(ROOMS, json={"action": "members", "room": "one effect"})
    assert (first.content, "true", []) == (
        second.content,
        second.headers["Idempotent-Replay"],
        members.json()["members"],
    )


async def test_first_answer_is_no_replay(client: httpx.AsyncClient) -> None:
    """Only a repetition is marked."""
    response = await client.post(
        CACHE,
        json={"action": "get", "key": "x"},
        headers={"Idempotency-Key": "call-2"},
    )
    assert "Idempotent-Replay" not in response.headers


async def test_same_key_at_another_agent_is_another_call(client: httpx.AsyncClient) -> None:
    """Agents do not share answers."""
    key = {"Idempotency-Key": "call-3"}
    await client.post(CACHE, json={"action": "get", "key": "x"}, headers=key)
    response = await client.post(ROOMS, json={"action": "members", "room": "x"}, headers=key)
    expected = "x"
    assert expected == response.json()["room"]


async def test_refusal_is_not_kept(client: httpx.AsyncClient) -> None:
    """After an error the same key may try again."""
    key = {"Idempotency-Key": "call-4"}
    await client.post(CACHE, json={}, headers=key)
    response = await client.post(CACHE, json={"action": "get", "key": "x"}, headers=key)
    expected = 200
    assert expected == response.status_code


async def test_concurrent_calls_with_one_key_work_once() -> None:
    """Two calls at the same time share one piece of work."""
    answers, done = Answers(), []

    async def work() -> bytes:
        await asyncio.sleep(0)
        done.append(1)
        return b"{}"

    calls = [answers.once(("a", "1"), work) for _ in range(2)]
    both = await asyncio.gather(*calls)
    expected = ([1], [(b"{}", False), (b"{}", True)])
    assert expected == (done, both)


@pytest.mark.parametrize("bounds", [(1, 1000), (1000, 5)])
async def test_memory_of_answers_is_bounded(bounds: tuple[int, int]) -> None:
    """Over the bound of number or bytes the oldest answer is forgotten."""
    answers = Answers(*bounds)

    async def work() -> bytes:
        return b"1234"

    await answers.once(("a", "old"), work)
    await answers.once(("a", "new"), work)
    expected = (b"1234", False)
    assert expected == await answers.once(("a", "old"), work)
