"""The shorter way to some answers: it gives those that the application gives."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from structlog.testing import capture_logs

from api.app import create_app
from api.dependencies import Services
from api.direct import DirectRoutes
from api.security import Gate
from orchestrator.config import Limits, Settings
from orchestrator.errors import EngineUnavailable, TaskNotFound, UnknownPattern
from orchestrator.models import TaskRequest, TaskState
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.sessions import Sessions
from orchestrator.statuses import TaskStatus

ENDED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


class Tasks:
    """Knows one task; for others it has errors."""

    async def status(self, task_id: str, wait: float = 0) -> TaskStatus:  # noqa: ARG002
        """That of the one."""
        if task_id == "away":
            raise EngineUnavailable("The engine is unreachable")
        if task_id == "broken":
            raise RuntimeError("secret")
        if task_id != "known one":
            raise TaskNotFound(task_id)
        return TaskStatus(
            task_id=task_id, status=TaskState.COMPLETED, created_at=ENDED, updated_at=ENDED
        )


class Routes:
    """Has no route for anything."""

    def plan(self, request: TaskRequest) -> None:
        """None."""
        raise UnknownPattern(request.pattern, [], ())


def services() -> Services:
    """As far as these requests need them."""
    settings = SimpleNamespace(limits=Limits(max_payload_bytes=1024))
    parts = SimpleNamespace(tasks=Tasks(), routes=Routes(), settings=settings)
    return cast("Services", parts)


async def both(method: str, url: str, **options: Any) -> list[httpx.Response]:
    """The answers by the application alone, and by the shorter way before it."""
    app, settings = create_app(services()), Settings()
    authenticator = Authenticator(settings)
    found = []
    for each in (app, DirectRoutes(app, services())):
        gate = Gate(each, authenticator, Sessions(settings.security, authenticator))
        transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            found.append(await client.request(method, url, **options))
    return found


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/status/known%20one", 200),
        ("GET", "/status/unknown", 404),
        ("GET", "/status/away", 503),
        ("GET", "/status/broken", 500),
        ("GET", "/status/known%20one?wait=1", 200),
        ("GET", "/status/a%2Fb", 404),
        ("GET", "/status/a%00b", 404),
        ("GET", "/status/", 404),
        ("GET", "/status/" + "x" * 501, 422),
        ("HEAD", "/status/known%20one", 405),
        ("POST", "/status/known%20one", 405),
        ("GET", "/orchestrate", 405),
        ("GET", "/nowhere", 404),
    ],
)
async def test_every_answer_is_that_of_the_application(method: str, url: str, status: int) -> None:
    """Status, headers and body, whatever the request."""
    # What breaks is logged with its stack, which takes long to lay out for a terminal.
    with capture_logs():
        app, direct = await both(method, url)
    assert status == app.status_code
    assert (app.status_code, app.headers, app.content) == (
        direct.status_code,
        direct.headers,
        direct.content,
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"pattern": "none", "payload": {}}', 400),
        (b'{"payload": {}}', 422),
        (b"[]", 422),
        (b"{", 422),
        (b"", 422),
        (b'{"pattern": "none", "payload": {"a": "%b"}}' % (b"x" * 2000), 413),
    ],
)
async def test_so_is_the_answer_to_a_wrong_submission(body: bytes, status: int) -> None:
    """The problem document with its fields."""
    headers = {"Content-Type": "application/json"}
    app, direct = await both("POST", "/orchestrate", content=body, headers=headers)
    assert (status, status) == (app.status_code, direct.status_code)
    assert (app.headers, app.json()) == (direct.headers, direct.json())
    assert status == direct.json()["status_code"]


async def test_a_body_that_is_empty_or_too_much_is_told_as_such() -> None:
    """In the words of JSON, and not of what reads it."""
    headers = {"Content-Type": "application/json"}
    found = [
        (await both("POST", "/orchestrate", content=body, headers=headers))[1].json()["detail"]
        for body in (b"", b"1, 2")
    ]
    assert [
        "The body is not JSON: EOF while parsing",
        "The body is not JSON: trailing characters",
    ] == [each.partition(" at ")[0].partition(" a value")[0] for each in found]
