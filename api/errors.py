"""How errors become HTTP: RFC 9457 problem documents that also carry detail and status_code."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from api import rate_limits
from orchestrator.engine.listing import InvalidCursor
from orchestrator.errors import (
    AgentUnavailable,
    AggregateNotFound,
    BatchNotFound,
    BatchRefused,
    CallbackNotFound,
    CallbackRefused,
    CancellationNotFound,
    CompletionEarly,
    CompletionExpired,
    CompletionRefused,
    CompletionUnknown,
    DeadLetterNotFound,
    EngineRefused,
    EngineUnavailable,
    Forbidden,
    IdempotencyConflict,
    ObjectMissing,
    OrchestratorError,
    OrderRefused,
    PayloadTooLarge,
    PayloadUnreadable,
    QueueFull,
    QuotaExceeded,
    RateLimited,
    RedriveNotFound,
    StreamsFull,
    TaskNotFound,
    Unauthenticated,
    UnknownEvent,
    UnknownPattern,
)
from orchestrator.telemetry.logging import get_logger

PROBLEM_TYPE = "application/problem+json"
ENGINE_RETRY_SECONDS = 2
UNKNOWN_RETRY_SECONDS = 5
"""When to come back, where nobody knows when there will be room."""

STATUSES: dict[type[Exception], HTTPStatus] = {
    UnknownPattern: HTTPStatus.BAD_REQUEST,
    PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TaskNotFound: HTTPStatus.NOT_FOUND,
    DeadLetterNotFound: HTTPStatus.NOT_FOUND,
    BatchNotFound: HTTPStatus.NOT_FOUND,
    AggregateNotFound: HTTPStatus.NOT_FOUND,
    CallbackNotFound: HTTPStatus.NOT_FOUND,
    CallbackRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    BatchRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    RedriveNotFound: HTTPStatus.NOT_FOUND,
    CancellationNotFound: HTTPStatus.NOT_FOUND,
    CompletionUnknown: HTTPStatus.NOT_FOUND,
    CompletionExpired: HTTPStatus.GONE,
    CompletionRefused: HTTPStatus.CONFLICT,
    CompletionEarly: HTTPStatus.SERVICE_UNAVAILABLE,
    IdempotencyConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    EngineUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    EngineRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    AgentUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    QueueFull: HTTPStatus.SERVICE_UNAVAILABLE,
    StreamsFull: HTTPStatus.SERVICE_UNAVAILABLE,
    UnknownEvent: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    Forbidden: HTTPStatus.FORBIDDEN,
}
"""By the kind of error; one that is not here has that of the kind that it is one of."""

ORDER_STATUSES = {
    "not_found": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
}

_BEARER = 'Bearer realm="orchestrator"'
_NO_STORAGE = "[TMPRL1105]"
"""By which the engine's client begins the text of an error that has no type of its own."""

_PREFIX = "Value error, "
"""What pydantic puts before our own texts."""

log = get_logger(__name__)


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **extra: Any
) -> Response:
    """A problem document."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "status_code": status,
        **extra,
    }
    return Response(to_json(body), status, headers, media_type=PROBLEM_TYPE)


def status_of(error: Exception) -> int:
    """The HTTP status that an error is answered with."""
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, RequestValidationError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, OrderRefused):
        return ORDER_STATUSES.get(error.kind, HTTPStatus.UNPROCESSABLE_ENTITY)
    kinds = (kind for kind in type(error).__mro__ if kind in STATUSES)
    return STATUSES.get(next(kinds, Exception), HTTPStatus.INTERNAL_SERVER_ERROR)


_FOR_OPERATORS = (PayloadUnreadable, ObjectMissing)
"""No request that is sent again mends these."""


def _domain(_: Request, error: Exception) -> Response:
    status = status_of(error)
    if isinstance(error, EngineUnavailable) and not isinstance(error, _FOR_OPERATORS):
        detail = f"{error}; send the request again, with the same Idempotency-Key if it had one"
        return problem(status, detail, {"Retry-After": str(ENGINE_RETRY_SECONDS)})
    if isinstance(error, StreamsFull):
        return problem(status, str(error), {"Retry-After": str(UNKNOWN_RETRY_SECONDS)})
    if isinstance(error, CompletionEarly):
        return problem(status, str(error), {"Retry-After": str(ENGINE_RETRY_SECONDS)})
    if isinstance(error, UnknownPattern):
        return problem(status, str(error), closest=error.closest)
    if isinstance(error, BatchRefused):
        return problem(status, str(error), errors=error.bad, bad_items=error.bad_items)
    return problem(status, str(error))


def _denied(_: Request, error: Exception) -> Response:
    return problem(status_of(error), str(error), {"WWW-Authenticate": _BEARER + _hint(error)})


def _hint(error: Exception) -> str:
    """What RFC 6750 says to whoever showed a credential that is no good, or not enough."""
    if isinstance(error, Forbidden):
        wanted = f', scope="{error.scope}"' if error.scope else ""
        return f', error="insufficient_scope"{wanted}'
    return ', error="invalid_token"' if isinstance(error, Unauthenticated) and error.shown else ""


def retry_seconds(error: AgentUnavailable | RateLimited | QueueFull) -> float:
    """Seconds after which a refused task may be sent again."""
    known = None if isinstance(error, QueueFull) else error.retry_after
    return UNKNOWN_RETRY_SECONDS if known is None else known


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, AgentUnavailable | RateLimited | QueueFull)  # noqa: S101 - for no other
    seconds = retry_seconds(error)
    headers = {"Retry-After": rate_limits.retry_after(seconds)}
    if isinstance(error, RateLimited):
        headers = rate_limits.refused(error.agent, error.limit, seconds)
    return problem(status_of(error), str(error), headers)


def _over_quota(_: Request, error: Exception) -> Response:
    assert isinstance(error, QuotaExceeded)  # noqa: S101 - it is registered for no other
    headers = rate_limits.over_quota(error)
    return problem(status_of(error), str(error), headers, quota=error.policy)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for no other
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail_of(error), errors=_misfits(error))


def _misfits(error: RequestValidationError) -> list[dict[str, str]]:
    return [
        {"field": ".".join(map(str, each["loc"])), "message": each["msg"].removeprefix(_PREFIX)}
        for each in error.errors()
    ]


def detail_of(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, RequestValidationError):
        return "; ".join(": ".join(filter(None, each.values())) for each in _misfits(error))
    return error.detail if isinstance(error, HTTPException) else str(error)


def retry_after_of(error: Exception) -> float | None:
    """Seconds after which the same request may be answered otherwise; None where it never is."""
    if isinstance(error, EngineUnavailable):
        return ENGINE_RETRY_SECONDS
    if isinstance(error, AgentUnavailable | RateLimited | QueueFull):
        return retry_seconds(error)
    if isinstance(error, QuotaExceeded):
        return error.retry_after
    return None


def _cursor(_: Request, __: Exception) -> Response:
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "cursor: not one that this service gave as next_cursor"
    )


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for no other
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": _allowed(request)}
    return problem(error.status_code, error.detail, headers)


def _allowed(request: Request) -> str:
    """The methods of all routes that have the request's path, and not of the first alone."""
    found = set[str]()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(found))


def _unexpected(request: Request, error: Exception) -> Response:
    if str(error).startswith(_NO_STORAGE):
        detail = "A payload is in a storage, and this process has none: set payloads.storage"
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "An unexpected error; the log has more")


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Response]] = {
    OrchestratorError: _domain,
    AgentUnavailable: _refused,
    RateLimited: _refused,
    QueueFull: _refused,
    QuotaExceeded: _over_quota,
    Unauthenticated: _denied,
    Forbidden: _denied,
    RequestValidationError: _invalid,
    InvalidCursor: _cursor,
    HTTPException: _http,
    Exception: _unexpected,
}


def answer(request: Request, error: Exception) -> Response:
    """What an error is answered with, by the nearest of its types that is known."""
    handler = next(_HANDLERS[kind] for kind in type(error).__mro__ if kind in _HANDLERS)
    return handler(request, error)


def install(app: Starlette) -> None:
    """Have the application answer every error so."""

    # Async, or each would go by a thread.
    async def answered(request: Request, error: Exception) -> Response:
        return answer(request, error)

    for kind in _HANDLERS:
        app.add_exception_handler(kind, answered)
