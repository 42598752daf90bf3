"""Sample agents that answer later: 202 first, then what was asked for, to the completion URL."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio

from examples.agents.app import create_app
from tests.support.agents import Agent, Reply

AGENT = "/caching_agent/cache"


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a fresh application."""
    transport = httpx.ASGITransport(create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://agents") as client:
        yield client


async def call(
    client: httpx.AsyncClient, url: str | None, later: dict[str, Any], attempt: int = 1
) -> httpx.Response:
    """Call an agent so that it answers later."""
    headers = {"X-Attempt": str(attempt)} | ({"X-Completion-URL": url} if url else {})
    payload = {"action": "get", "key": "k", "_later": later}
    return await client.post(AGENT, json=payload, headers=headers)


async def test_progress_and_then_the_result(client: httpx.AsyncClient) -> None:
    """The call is answered with 202 at once; the posts come in their order."""
    async with Agent() as receiver:
        answer = await call(client, receiver.url, {"seconds": 0.02, "progress": 1})
        await receiver.called(2)
    assert 202 == answer.status_code
    progress, result = (each.body for each in receiver.calls)
    assert {"progress": {"percent": 50}} == progress
    assert ["result"] == list(result)


async def test_a_failure_of_the_first_attempts(client: httpx.AsyncClient) -> None:
    """With ``times`` a later attempt succeeds."""
    later = {"seconds": 0, "error": "offline", "retryable": True, "times": 1}
    async with Agent() as receiver:
        await call(client, receiver.url, later)
        first = await receiver.called()
        await call(client, receiver.url, later, attempt=2)
        second = await receiver.called(2)
    assert {"error": "offline", "retryable": True} == first.body
    assert ["result"] == list(second.body)


async def test_what_cannot_be_done_is_refused_at_once(client: httpx.AsyncClient) -> None:
    """A wrong wish, and a call without a URL to answer to, get 422."""
    async with Agent(Reply()) as receiver:
        wrong = await call(client, receiver.url, {"minutes": 1})
        nowhere = await call(client, None, {"seconds": 0})
    assert [422, 422] == [wrong.status_code, nowhere.status_code]
    assert "X-Completion-URL" in nowhere.json()["detail"]
