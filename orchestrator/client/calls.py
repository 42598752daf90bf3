"""One request to the API and how its answer is read; knows no connection."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from orchestrator.client.errors import KINDS, ApiError, UnexpectedAnswer

Answer = TypeVar("Answer")
Item = TypeVar("Item")
AnyModel = TypeVar("AnyModel", bound=BaseModel)

JSON = "application/json"
NDJSON = "application/x-ndjson"
# A proxy's own words for an API that is not there now.
_AWAY = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
_EXCERPT = 100


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request.

    Args:
        method: of HTTP.
        path: below the API's URL.
        read: makes the answer of a response with a good status.
        params: of the query.
        headers: beside those of the client.
        content: the body.
        wait: seconds that the API may take to answer.
        repeatable: sent twice it has the effect of once.
        accepts: statuses beside 2xx that are good.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], Answer]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    wait: float = 0
    repeatable: bool = True
    accepts: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Pages(Generic[Item]):
    """A list that comes in pages: ``page`` is the call for the one after a cursor.

    It is answered by the page's items and the next cursor; None ends the list.
    """

    page: Callable[[str | None], Call[tuple[Sequence[Item], str | None]]]


def as_model(kind: type[AnyModel]) -> Callable[[httpx.Response], AnyModel]:
    """Reads an answer as a model; fields that a newer API adds are passed over."""
    return lambda response: parsed(kind, response.content, response)


def parsed(kind: type[AnyModel], content: bytes, response: httpx.Response) -> AnyModel:
    """JSON of a response as a model.

    Raises:
        UnexpectedAnswer: it is none.
    """
    try:
        return kind.model_validate_json(content, extra="ignore")
    except ValidationError:
        raise unexpected(response) from None


def path_of(*parts: str) -> str:
    """A path; ids may hold any character."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def document(fields: Any) -> bytes:
    """A body as JSON.

    Raises:
        TypeError, ValueError: it holds what is no JSON, such as NaN.
    """
    text = json.dumps(
        fields,
        allow_nan=False,
        ensure_ascii=False,
        separators=(",", ":"),
        default=to_jsonable_python,
    )
    return text.encode()


def query(**fields: Any) -> dict[str, str]:
    """Query parameters of those that are given; a time without a zone is a local one."""
    return {name: _text(value) for name, value in fields.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.astimezone()).isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)


def given(**fields: Any) -> dict[str, Any]:
    """Those fields that say something."""
    return {name: value for name, value in fields.items() if value not in (None, "", (), [])}


def selecting(**filters: Any) -> dict[str, Any]:
    """Those filters that are given; an empty one is, for the API to refuse: it never means all."""
    return {name: value for name, value in filters.items() if value is not None}


def prefer(wait: float | None) -> dict[str, str]:
    """The header that asks the API to wait for the end, whole seconds."""
    return {} if wait is None else {"Prefer": f"wait={math.ceil(wait)}"}


def failure(call: Call[Any], response: httpx.Response) -> ApiError | UnexpectedAnswer | None:
    """What a response says is wrong; None for a good one."""
    status = response.status_code
    if response.is_success or status in call.accepts:
        return None
    problem = _problem(response)
    if problem is None and status not in _AWAY:
        return unexpected(response)
    problem = problem or {}
    detail = problem.get("detail") or f"The API's server answers {status} {response.reason_phrase}"
    return KINDS.get(status, ApiError)(status, str(detail), retry_after(response), problem)


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    try:
        found = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) and "detail" in found else None


def unexpected(response: httpx.Response) -> UnexpectedAnswer:
    """The error of an answer that this API does not give."""
    kind = response.headers.get("content-type", "no content type")
    target = response.headers.get("location")
    words = f"to {target}" if target else f"({kind}): {response.text[:_EXCERPT]!r}"
    return UnexpectedAnswer(
        f"{response.request.method} {response.request.url} is not answered as the orchestrator's "
        f"API does, but by {response.status_code} {words}; is the URL right?",
        response.status_code,
    )


def retry_after(response: httpx.Response) -> float | None:
    """Seconds by the Retry-After header, given as seconds or as a date."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
