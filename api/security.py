"""The gate before the application: who sends a request, and whether they may.

It stands before the shorter way too (api/direct.py), so that there is no way around it. What is
not named here takes the most: to see takes ``read``, to do takes ``operate`` for all tenants.
Numbers of all tenants together take a caller for all of them.
"""

import re
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from api import errors
from api.callers import known, set_caller
from orchestrator.errors import Forbidden, Unauthenticated
from orchestrator.security.authenticator import NO_CREDENTIALS, Authenticator
from orchestrator.security.callers import Caller, Scope
from orchestrator.security.exposure import check_host
from orchestrator.security.sessions import COOKIE, Sessions
from orchestrator.telemetry.logging import audit_logger

CSRF_HEADER = "x-requested-with"
"""Whatever it says: no form and no foreign page can send it unasked."""

_SAFE = {"GET", "HEAD", "OPTIONS"}
_PUBLIC = {
    "/health",
    "/live",
    "/ready",
    "/login",
    "/session",
    "/openapi.json",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
}
_PAGES = "/dashboard/"
"""The files of the pages: the same for everybody, and nothing of anybody's in them."""
_DENIALS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SEE_OTHER}
_LATE_ANSWERS = "/completions/"
"""Agents that answer later: the rest of the path is the permission, and is a secret."""
_SUBMITS = {"/orchestrate", "/orchestrate/batch", "/aggregate"}
_CANCELS = re.compile(r"/(?:tasks|batches|aggregate)/[^/]+/cancel")
_OF_ALL = {"/metrics", "/traffic"}
"""What tells of all tenants' work, in numbers that cannot be taken apart."""
_OF_TENANTS = ("/tasks/", "/batches/", "/aggregate/", "/dead-letters/", "/callbacks/")

audit = audit_logger()


def required(method: str, path: str) -> Scope | None:
    """The scope that a request takes; None is open to everybody."""
    if path in _PUBLIC or path.startswith((_PAGES, _LATE_ANSWERS)):
        return None
    if method in _SAFE:
        return Scope.READ
    if method == "POST" and (path in _SUBMITS or _CANCELS.fullmatch(path)):
        return Scope.SUBMIT
    return Scope.OPERATE


class Gate:
    """The application behind a gate; everything that operators do is written to the audit log.

    Args:
        app: the application.
        authenticator: knows who sends a request.
        sessions: those of browsers.
        is_local_only: nobody is asked who they are, but everybody is on this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        sessions: Sessions,
        *,
        is_local_only: bool = False,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._sessions = sessions
        self._is_local_only = is_local_only

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Let the request in, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        wanted = required(method, path)
        request = Request(scope)
        caller: Caller | None = None
        try:
            if self._is_local_only:
                _check_host(request)
            caller = await self._caller(request, wanted)
            if caller is not None:
                _check(caller, wanted, method, path)
                set_caller(scope, caller)
        except (Unauthenticated, Forbidden) as error:
            response = _refusal(request, error)
            _record(request, caller, response.status_code, str(error))
            await response(scope, receive, send)
            return
        if method in _SAFE or path in _SUBMITS or path.startswith(_LATE_ANSWERS):
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _recorded(request, send))

    async def _caller(self, request: Request, wanted: Scope | None) -> Caller | None:
        """Who sends it; None who is not known and need not be."""
        header = request.headers.get("authorization")
        if header is not None:
            kind, _, credential = header.partition(" ")
            if kind.lower() == "bearer" and credential.strip():
                try:
                    return await self._authenticator.caller(credential.strip())
                except Unauthenticated:
                    if wanted is None:
                        return None
                    raise
            if self._authenticator.asks and wanted is not None:
                raise Unauthenticated(NO_CREDENTIALS)
        try:
            return await self._without_header(request)
        except Unauthenticated:
            if wanted is None:
                return None
            raise

    async def _without_header(self, request: Request) -> Caller:
        unsafe = request.method not in _SAFE
        if unsafe and _is_foreign(request):
            raise Forbidden("The request comes from a page of another site")
        cookie = request.cookies.get(COOKIE) if self._authenticator.asks else None
        if cookie is not None:
            caller = self._sessions.caller(cookie)
            if unsafe and CSRF_HEADER not in request.headers:
                raise Forbidden(
                    "With a session, requests that change something need the header "
                    "X-Requested-With, which another site cannot send"
                )
            return caller
        return await self._authenticator.caller(None)


def _check_host(request: Request) -> None:
    """As exposure.check_host; but agents' late answers bear a secret."""
    if not request.scope["path"].startswith(_LATE_ANSWERS):
        check_host(request.headers.get("host"))


def _is_foreign(request: Request) -> bool:
    """Whether a browser says that another site's page sends it."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    except ValueError:
        return True


def _check(caller: Caller, wanted: Scope | None, method: str, path: str) -> None:
    """Whether it may.

    Raises:
        Forbidden: it may not, and what it would take.
    """
    if wanted is None:
        return
    if not caller.may(wanted):
        raise Forbidden(f"This takes the scope '{wanted}', which your key has not", wanted)
    steers_all = wanted is Scope.OPERATE and not path.startswith(_OF_TENANTS)
    if (steers_all or path in _OF_ALL) and not caller.sees_all:
        raise Forbidden(
            f"{method} {path} concerns all tenants, and your key is for '{caller.tenant}' alone"
        )


def _refusal(request: Request, error: Exception) -> Response:
    """A problem document; a browser that asks for a page is shown where to log in."""
    page = "text/html" in request.headers.get("accept", "")
    if isinstance(error, Unauthenticated) and page and request.method == "GET":
        return RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    return errors.answer(request, error)


def _recorded(request: Request, send: Send) -> Send:
    async def recording(message: Message) -> None:
        if message["type"] == "http.response.start":
            # By now somebody may have logged in.
            _record(request, known(request.scope), message["status"])
        await send(message)

    return recording


def _outcome(status: int) -> str:
    if status in _DENIALS:
        return "denied"
    return "done" if status < HTTPStatus.BAD_REQUEST else "refused"


def _record(request: Request, caller: Caller | None, status: int, reason: str = "") -> None:
    """A line of the audit log; of what was shown as a credential it says nothing."""
    path = request.scope["path"]
    fields = {
        "actor": caller.name if caller else None,
        "tenant": caller.tenant if caller else None,
        "by": caller.kind if caller else None,
        "action": request.method,
        "target": _LATE_ANSWERS if path.startswith(_LATE_ANSWERS) else path,
        "client": request.client.host if request.client else None,
        "outcome": _outcome(status),
        "status": status,
    }
    audit.info("audit", **fields, **({"reason": reason} if reason else {}))
