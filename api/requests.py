"""Reading requests: JSON bodies with a cap, the Prefer header, idempotency keys, trace contexts."""

import hashlib
import json
import re
import uuid
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from orchestrator.errors import PayloadTooLarge
from orchestrator.json_text import decode
from orchestrator.models import Model, TaskRequest

AnyModel = TypeVar("AnyModel", bound=Model)

MAX_WAIT_SECONDS = 60
MAX_KEY_CHARACTERS = 255
_NAMESPACE = uuid.UUID("7c0e8a52-5d0b-5f37-9b52-6f6f4f1f9c11")
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object; NaN, Infinity and lone surrogates are not JSON.

    Raises:
        HTTPException: 415 for another content type, 422 for what is not a JSON object.
        PayloadTooLarge: as soon as the cap is passed.
    """
    content_type = request.headers.get("content-type", "application/json")
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type is {content_type}; send application/json",
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise PayloadTooLarge(int(announced), max_bytes)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise PayloadTooLarge(len(body), max_bytes)
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body did not arrive whole") from None
    try:
        found = decode(body)
    except ValueError as error:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"The body is not JSON: {error}"
        ) from None
    if not isinstance(found, dict):
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The body is {'null' if found is None else type(found).__name__}; send a JSON object",
        )
    return found


def validated(model: type[AnyModel], body: dict[str, Any]) -> AnyModel:
    """The body as a model.

    Raises:
        RequestValidationError: with every misfit; the values themselves are not repeated.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_input=False, include_context=False)
        ) from None


def wait_seconds(request: Request) -> int:
    """Seconds to wait by ``Prefer: wait=N`` (RFC 7240), at most a minute; 0 without it."""
    prefer = ",".join(request.headers.getlist("prefer"))
    match = _WAIT.search(prefer)
    return min(int(match[1]), MAX_WAIT_SECONDS) if match else 0


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header, without the quotes that its draft standard asks for.

    Raises:
        HTTPException: 422 when it is empty or too long.
    """
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    key = header.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= MAX_KEY_CHARACTERS:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"Idempotency-Key has {len(key)} characters; 1 to {MAX_KEY_CHARACTERS} are allowed",
        )
    return key


def task_id_of(key: str, tenant: str) -> str:
    """The task id that a tenant's idempotency key stands for: the engine keeps ids unique."""
    return str(uuid.uuid5(_NAMESPACE, f"{tenant}\n{key}"))


def fingerprint(request: TaskRequest) -> str:
    """A digest that is the same for the same request, however its JSON was written."""
    canonical = json.dumps(request.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def traceparent(request: Request) -> str | None:
    """The caller's W3C trace context, if it is one."""
    header = request.headers.get("traceparent", "")
    return header if _TRACEPARENT.fullmatch(header) else None
