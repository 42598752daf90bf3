"""The few requests that come by the thousand, answered without a detour.

Their routes are declared, documented and carried out like all others. But matching, dependencies
and middleware cost more than these answers do, so where a request needs none of that (no query, a
plain path) its function is called here. Every other request goes on to the application.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import errors, overview, tasks
from api.dependencies import Services

_STATUS = "/status/"

Answer = Callable[[Request], Awaitable[Response]]


class DirectRoutes:
    """The application, with a shorter way to some of its functions."""

    def __init__(self, app: FastAPI, services: Services) -> None:
        self._app = app
        self._services = services
        self._answers: dict[tuple[str, str], Answer] = {
            ("POST", "/orchestrate"): lambda request: tasks.orchestrate(request, services),
            ("GET", "/health"): lambda _: overview.health(services),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or have the application answer it."""
        answer = self._answer_of(scope)
        if answer is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await answer(request)
        except Exception as error:  # noqa: BLE001 - every error is answered
            response = errors.answer(request, error)
        await response(scope, receive, send)

    def _answer_of(self, scope: Scope) -> Answer | None:
        if scope["type"] != "http" or scope["query_string"]:
            return None
        method, path = scope["method"], scope["path"]
        if method == "GET" and path.startswith(_STATUS):
            task_id = path[len(_STATUS) :]
            if 0 < len(task_id) <= tasks.MAX_ID and "/" not in task_id and "\0" not in task_id:
                return lambda request: tasks.status(task_id, request, self._services)
        return self._answers.get((method, path))
