"""The description of the API: what every operation has in common is added here once."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.security import required
from orchestrator.security.sessions import COOKIE

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_SCHEMES: dict[str, Any] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of `orchestrator keys create`, or a token (JWT)",
    },
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}
_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "status_code": {"type": "integer"},
    },
    "required": ["type", "title", "status", "detail", "status_code"],
}
_EVERY = {
    HTTPStatus.BAD_REQUEST: "The request is malformed",
    HTTPStatus.REQUEST_TIMEOUT: "The request did not arrive in time",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Something in the request is not as it should be",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "Too many or too large headers",
    HTTPStatus.SERVICE_UNAVAILABLE: "The engine does not answer, or there is no place",
}
_ASKED = {
    HTTPStatus.UNAUTHORIZED: "No key, or none that is taken",
    HTTPStatus.FORBIDDEN: "The key may not do that, or not for that tenant",
}
_WITH_BODY = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Another content type is wanted",
}


def install(app: FastAPI) -> None:
    """Have the application describe itself so."""

    def describe() -> dict[str, Any]:
        if not app.openapi_schema:
            asks = app.state.services.authenticator.asks
            app.openapi_schema = _described(app, asks=asks)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's way to extend it


def _described(app: FastAPI, *, asks: bool) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = found.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM_SCHEMA
    components["securitySchemes"] = _SCHEMES
    for method, path, operation in _operations(found):
        _complete(operation, method.upper(), path, asks=asks)
    return found


def _operations(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in found["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def _complete(operation: dict[str, Any], method: str, path: str, *, asks: bool) -> None:
    told = dict(_EVERY)
    scope = required(method, path)
    if scope is not None and asks:
        operation["security"] = [{"key": []}, {"session": []}]
        operation["x-scope"] = scope.value
        told |= _ASKED
    elif method != "GET" or path == "/session":
        told |= _ASKED
    if "requestBody" in operation:
        told |= _WITH_BODY
    responses = operation["responses"]
    for status, text in told.items():
        known = responses.setdefault(str(status.value), {"description": text})
        if status is not HTTPStatus.SERVICE_UNAVAILABLE or "content" not in known:
            content = known.setdefault("content", {})
            content.pop("application/json", None)
            content.setdefault("application/problem+json", {}).setdefault("schema", _PROBLEM)
