"""Log in with a key from a browser, see as whom, log out."""

from http import HTTPStatus

from fastapi import APIRouter, Request
from pydantic import Field, SecretStr
from starlette.responses import Response

from api import session_examples as examples
from api.callers import CallerDependency, set_caller
from api.dependencies import ServicesDependency
from api.requests import json_object, validated
from api.tasks import document
from orchestrator.models import Model
from orchestrator.security.callers import Caller
from orchestrator.security.sessions import COOKIE

MAX_BODY_BYTES = 16_384
"""Tokens may be long."""

router = APIRouter(tags=["session"])


class Login(Model):
    """The body of POST /session."""

    key: SecretStr = Field(min_length=1, max_length=8192, description="An API key, or a token")


class WhoAmI(Model):
    """As whom requests are answered."""

    name: str
    tenant: str | None = Field(description="Whose work is shown; null is all tenants'")
    scopes: tuple[str, ...]
    kind: str = Field(description="key, token or anonymous")


def _who(caller: Caller) -> WhoAmI:
    tenant, scopes = caller.bound, tuple(sorted(caller.scopes))
    return WhoAmI(name=caller.name, tenant=tenant, scopes=scopes, kind=caller.kind)


@router.get("/session", response_model=WhoAmI, summary="As whom?", responses=examples.WHO_RESPONSES)
async def session(caller: CallerDependency) -> Response:
    """Whose key, token or session the request shows."""
    return document(_who(caller))


@router.post(
    "/session",
    response_model=WhoAmI,
    summary="Log in",
    responses=examples.LOGIN_RESPONSES,
    openapi_extra=examples.LOGIN,
)
async def login(request: Request, services: ServicesDependency) -> Response:
    """Begin a session for the pages: a cookie instead of the key, which no script can read.

    With it, requests that change something need the header ``X-Requested-With``.
    """
    given = validated(Login, await json_object(request, MAX_BODY_BYTES))
    begun = await services.sessions.begin(given.key.get_secret_value())
    set_caller(request.scope, begun.caller)
    response = document(_who(begun.caller))
    response.set_cookie(
        COOKIE,
        begun.cookie,
        max_age=begun.seconds,
        path="/",
        httponly=True,
        samesite="strict",
        secure=_is_https(request),
    )
    return response


@router.delete(
    "/session",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Log out",
    responses=examples.LOGOUT_RESPONSES,
)
async def logout(request: Request) -> Response:
    """End the session in this browser."""
    response = Response(status_code=HTTPStatus.NO_CONTENT)
    response.delete_cookie(
        COOKIE, path="/", httponly=True, samesite="strict", secure=_is_https(request)
    )
    return response


def _is_https(request: Request) -> bool:
    """Whether the browser speaks HTTPS, with us or with a proxy before us."""
    forwarded = request.headers.get("x-forwarded-proto", "")
    return "https" in {request.url.scheme, forwarded.strip().lower()}
