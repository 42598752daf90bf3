"""Errors as problem documents."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from api import errors as api_errors
from api.requests import validated
from orchestrator import errors
from orchestrator.batches import BadItem
from orchestrator.engine.listing import InvalidCursor
from orchestrator.models import BlockedBy, LimitMode, RateLimit, TaskRequest

LIMIT = RateLimit(rate=20, burst=2, mode=LimitMode.REJECT)


@pytest_asyncio.fixture
async def app() -> FastAPI:
    """An application without routes and with the handlers."""
    app = FastAPI()
    api_errors.install(app)
    return app


@pytest_asyncio.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that sees answers instead of exceptions."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


async def answer(app: FastAPI, client: httpx.AsyncClient, error: Exception) -> httpx.Response:
    """The answer of a route that raises the error."""

    @app.get("/error")
    async def fail() -> None:
        raise error

    return await client.get("/error")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UnknownPattern("xyz", ["xy"], []), 400),
        (errors.TaskNotFound("t"), 404),
        (errors.BatchNotFound("b"), 404),
        (errors.AggregateNotFound("a"), 404),
        (errors.BatchRefused([BadItem(index=0, message="no")], 1, 2), 422),
        (errors.PayloadTooLarge(2, 1), 413),
        (errors.IdempotencyConflict("t"), 422),
        (InvalidCursor("x"), 422),
        (errors.EngineUnavailable("The engine is unreachable"), 503),
        (errors.EngineBusy("The engine did not answer in time"), 503),
        (errors.PayloadUnreadable("no key fits"), 503),
        (errors.ObjectMissing("o", "s3"), 503),
        (errors.StorageUnavailable("no answer"), 503),
        (errors.AgentUnavailable("reader", BlockedBy.BREAKER, 3), 503),
        (errors.RateLimited("reader", 3, LIMIT), 429),
        (errors.QueueFull(), 503),
        (errors.OrderRefused("no", "conflict"), 409),
        (HTTPException(415, "no"), 415),
    ],
)
async def test_each_error_has_its_status(
    app: FastAPI, client: httpx.AsyncClient, error: Exception, status: int
) -> None:
    """A problem document that also carries the two documented fields."""
    response = await answer(app, client, error)
    body = response.json()
    assert (status, "application/problem+json") == (
        response.status_code,
        response.headers["content-type"],
    )
    assert {"type", "title", "status", "detail", "status_code"} <= set(body)
    assert (status, status) == (body["status"], body["status_code"])


async def test_an_unknown_pattern_names_the_closest(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """In words, and as a list for programs."""
    body = (await answer(app, client, errors.UnknownPattern("xyz", ["xy"], []))).json()
    expected = ("Unknown pattern 'xyz'; did you mean 'xy'?", ["xy"])
    assert expected == (body["detail"], body["closest"])


async def test_an_unavailable_engine_says_when_to_come_back(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """And that repeating is safe with a key."""
    response = await answer(app, client, errors.EngineUnavailable("The engine is unreachable"))
    assert 1 <= int(response.headers["retry-after"])
    assert "same Idempotency-Key" in response.json()["detail"]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.AgentUnavailable("reader", BlockedBy.BREAKER, 2.1), "3"),
        (errors.AgentUnavailable("reader", BlockedBy.BREAKER, 0), "1"),
        (errors.AgentUnavailable("reader", BlockedBy.PAUSED), "5"),
        (errors.RateLimited("reader", 0.3, LIMIT), "1"),
        (errors.QueueFull(), "5"),
    ],
)
async def test_a_refusal_says_when_to_come_back(
    app: FastAPI, client: httpx.AsyncClient, error: Exception, seconds: str
) -> None:
    """Whole seconds, at least 1."""
    assert seconds == (await answer(app, client, error)).headers["retry-after"]


async def test_a_limit_is_told_with_its_refusal(app: FastAPI, client: httpx.AsyncClient) -> None:
    """By the RateLimit headers."""
    response = await answer(app, client, errors.RateLimited("reader", 3, LIMIT))
    expected = ('"reader";q=20;w=60', '"reader";r=0;t=3')
    assert expected == (response.headers["ratelimit-policy"], response.headers["ratelimit"])


async def test_an_unexpected_error_shows_nothing_of_itself(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """What it was stands in the log alone."""
    response = await answer(app, client, RuntimeError("s314159"))
    assert (500, "application/problem+json") == (
        response.status_code,
        response.headers["content-type"],
    )
    assert "314159" not in response.text


async def test_an_unknown_path_is_a_problem_too(client: httpx.AsyncClient) -> None:
    """The framework's own errors have the same form."""
    body = (await client.get("/nowhere")).json()
    assert (404, "Not Found") == (body["status_code"], body["detail"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"pattern": "p", "payload": {}, "priority": 9}, "priority"),
        ({"pattern": "p"}, "payload"),
        ({"pattern": "p", "payload": {}, "s314159": "s314159"}, "s314159"),
    ],
)
async def test_a_wrong_field_is_named(
    app: FastAPI, client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    """In words, and as a list for programs; the value itself is not repeated."""

    @app.post("/tasks")
    async def submit() -> None:
        validated(TaskRequest, body)

    response = await client.post("/tasks")
    found = response.json()
    assert (422, [field]) == (response.status_code, [each["field"] for each in found["errors"]])
    assert found["detail"].startswith(f"{field}: ")
    assert "input" not in found["errors"][0]
