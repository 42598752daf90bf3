"""Reading requests: JSON bodies with a cap, the Prefer header, idempotency keys, trace contexts."""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from orchestrator.batches import batch_id_of
from orchestrator.errors import PayloadTooLarge
from orchestrator.json_text import decode, kind_of
from orchestrator.models import Model
from orchestrator.traces import traced

AnyModel = TypeVar("AnyModel", bound=Model)

MAX_WAIT_SECONDS = 60
MAX_KEY_CHARACTERS = 255
_NAMESPACE = uuid.UUID("7c0e8a52-5d0b-5f37-9b52-6f6f4f1f9c11")
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


def _possible(given: str) -> str:
    if "\0" in given:
        raise HTTPException(HTTPStatus.NOT_FOUND, "An id with a NUL in it is not known")
    return given


POSSIBLE = AfterValidator(_possible)
"""Of ids in paths: the engine's database, where it is PostgreSQL, cannot even look for a NUL."""


async def json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object; NaN, Infinity and lone surrogates are not JSON.

    Raises:
        HTTPException: 415 for another content type, 422 for what is not a JSON object.
        PayloadTooLarge: as soon as the cap is passed.
    """
    content_type(request, "application/json")
    return json_document(await whole_body(request, max_bytes))


def json_document(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        HTTPException: 422 for what is not one.
    """
    found = json_value(body)
    if not isinstance(found, dict):
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The body is {kind_of(found)}; send a JSON object",
        )
    return found


def content_type(request: Request, *allowed: str) -> str:
    """The body's content type, which is one of those; the first where none is told.

    Raises:
        HTTPException: 415 for another.
    """
    told = request.headers.get("content-type", allowed[0])
    found = told.split(";")[0].strip().lower()
    if found not in allowed:
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type is {told}; send {' or '.join(allowed)}",
        )
    return found


def is_json(content_type: str | None) -> bool:
    """Whether a body of that type is JSON; without a type it is taken for it."""
    return content_type is None or content_type.split(";")[0].strip().lower() == "application/json"


async def whole_body(request: Request, max_bytes: int) -> bytes:
    """The body.

    Raises:
        HTTPException: 400 when it does not arrive whole.
        PayloadTooLarge: as soon as the cap is passed.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise PayloadTooLarge(int(announced), max_bytes)
    chunks, size = list[bytes](), 0
    try:
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                raise PayloadTooLarge(size, max_bytes)
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body did not arrive whole") from None
    return b"".join(chunks)


def json_value(body: bytes) -> Any:
    """The body as JSON.

    Raises:
        HTTPException: 422 for what is not JSON.
    """
    try:
        return decode(body)
    except ValueError as error:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"The body is not JSON: {error}"
        ) from None


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


def wait_seconds(request: Request, default: int = 0) -> int:
    """Seconds to wait by ``Prefer: wait=N`` (RFC 7240), at most a minute; else the default."""
    prefer = ",".join(request.headers.getlist("prefer"))
    match = _WAIT.search(prefer)
    return min(int(match[1]), MAX_WAIT_SECONDS) if match else default


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
    return checked_key(key, "Idempotency-Key")


def checked_key(key: str, name: str) -> str:
    """The key, if it is one.

    Raises:
        HTTPException: 422 when it is empty or too long.
    """
    if not 0 < len(key) <= MAX_KEY_CHARACTERS:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{name} has {len(key)} characters; 1 to {MAX_KEY_CHARACTERS} are allowed",
        )
    return key


def task_id_of(key: str, tenant: str) -> str:
    """The task id that a tenant's idempotency key stands for: the engine keeps ids unique."""
    return str(uuid.uuid5(_NAMESPACE, f"{tenant}\n{key}"))


def batch_id_for(key: str | None, tenants: Iterable[str]) -> str:
    """A new batch's id; with an idempotency key the one that it stands for, for these tenants."""
    if key is None:
        return batch_id_of(uuid.uuid4())
    return batch_id_of(uuid.uuid5(_NAMESPACE, "\n".join(("batch", *sorted(tenants), key))))


def fingerprint(request: Model) -> str:
    """A digest that is the same for the same request, however its JSON was written."""
    canonical = json.dumps(request.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def traceparent(request: Request) -> str | None:
    """The caller's W3C trace context, if it is one."""
    return checked_trace(request.headers.get("traceparent"))


def checked_trace(text: str | None) -> str | None:
    """The text, if it is a W3C trace context."""
    return text if text and traced(text) else None
