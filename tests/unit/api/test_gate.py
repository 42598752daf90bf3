"""Requests that browsers send for pages of others are known as such."""

import pytest
from fastapi import Request
from starlette.responses import Response
from starlette.types import Message

from api.security import Gate, _is_foreign
from orchestrator.config import Settings
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.sessions import Sessions


def request(**headers: str) -> Request:
    """One to api.example with these headers."""
    given = {"host": "api.example"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    pairs = [(name.encode(), value.encode()) for name, value in given.items()]
    return Request({"type": "http", "method": "POST", "headers": pairs})


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"origin": "https://api.example"}, False),
        ({"origin": "https://other.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://["}, True),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "none"}, False),
    ],
)
def test_a_page_of_another_site_is_foreign(headers: dict[str, str], foreign: bool) -> None:  # noqa: FBT001
    """Whatever it calls itself."""
    assert foreign == _is_foreign(request(**headers))


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/tasks", "127.0.0.1:8000", 200),
        ("/tasks", "evil.example:8000", 403),
        ("/health", "evil.example:8000", 403),
        ("/completions/secret", "orchestrator.internal", 200),
        ("/tasks", None, 200),
    ],
)
async def test_no_other_site_reaches_an_api_that_asks_nobody(
    path: str, host: str | None, status: int
) -> None:
    """By its own name, which leads to this machine; HTTP/1.0 names none."""
    assert status == await answered(path, host, is_local_only=True)


async def test_any_name_will_do_where_something_else_asks() -> None:
    """Which is to look at names too."""
    assert 200 == await answered("/tasks", "orchestrator.internal", is_local_only=False)


async def answered(path: str, host: str | None, *, is_local_only: bool) -> int:
    """The status of what comes to that host, of an API that asks nobody."""
    authenticator = Authenticator(settings := Settings())
    sessions = Sessions(settings.security, authenticator)
    gate = Gate(Response(), authenticator, sessions, is_local_only=is_local_only)
    headers = [] if host is None else [(b"host", host.encode())]
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Message:
        return {"type": "http.request"}

    await gate(
        {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers},
        receive,
        send,
    )
    [status] = statuses
    return status
