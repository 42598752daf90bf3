"""Reading batches: a JSON array of tasks, or one task a line; every mistake is told."""

import asyncio
import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from api.requests import content_type, json_value, whole_body
from orchestrator.batches import MAX_ITEMS
from orchestrator.batching import Intake
from orchestrator.errors import BatchRefused
from orchestrator.json_text import decode, kind_of
from orchestrator.receivers import SubmissionGuard

JSON = "application/json"
LINES = ("application/x-ndjson", "application/jsonl")


class _Unreadable(str):
    """Why a line is no JSON."""

    __slots__ = ()


async def take_in(
    request: Request, intake: Intake, max_bytes: int, *, fingerprinted: bool = False
) -> str | None:
    """Have the intake take the items of a request's body; their fingerprint, if it is wanted.

    Raises:
        HTTPException: 415 for another content type; 422 for a body that is no batch, is empty, or
            has too many items.
        PayloadTooLarge: the body is over the cap.
    """
    written = _lines if content_type(request, JSON, *LINES) in LINES else _array
    # Some editors begin every file with a mark, which JSON does not know.
    items = written((await whole_body(request, max_bytes)).removeprefix(codecs.BOM_UTF8))
    digest = hashlib.sha256() if fingerprinted else None
    # Thousands of items take their time, in which others are answered.
    return await asyncio.to_thread(_taken, intake, items, digest)


def _taken(intake: Intake, items: Iterable[Any], digest: "hashlib._Hash | None") -> str | None:
    for raw in items:
        if intake.seen == MAX_ITEMS:
            raise _wrong(
                f"A batch has at most {MAX_ITEMS:,} items; send the others in a further one"
            )
        if isinstance(raw, _Unreadable):
            intake.refuse(raw)
        else:
            intake.offer(raw)
        if digest is not None:
            digest.update(_canonical(raw))
    if not intake.seen:
        raise _wrong("The batch is empty; send at least one task")
    return digest.hexdigest() if digest is not None else None


def _array(body: bytes) -> Iterator[Any]:
    found = json_value(body)
    del body
    if not isinstance(found, list):
        raise _wrong(
            f"The body is {kind_of(found)}; send a JSON array of tasks, or one task a line as "
            "application/x-ndjson"
        )
    found.reverse()
    while found:
        # Each is let go once it is text.
        yield found.pop()


def _lines(body: bytes) -> Iterator[Any]:
    for number, line in enumerate(_split(body), start=1):
        if not line.strip():
            continue
        try:
            yield decode(line)
        except ValueError as error:
            yield _Unreadable(f"line {number} is not JSON: {error}")


def _split(body: bytes) -> Iterable[bytes]:
    begin = 0
    while begin < len(body):
        end = body.find(b"\n", begin)
        end = len(body) if end < 0 else end
        yield body[begin:end]
        begin = end + 1


def _canonical(raw: Any) -> bytes:
    """The same for the same item, however its JSON was written."""
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _wrong(detail: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def all_good(intake: Intake) -> None:
    """Go on only if nothing is wrong with any item.

    Raises:
        BatchRefused: with what is wrong.
    """
    if intake.bad_items:
        raise BatchRefused(intake.bad, intake.bad_items, intake.seen)


def some_good(intake: Intake) -> None:
    """Go on only if there is something to start.

    Raises:
        BatchRefused: every item is wrong.
    """
    if not intake.taken:
        all_good(intake)


async def check_receivers(intake: Intake, guard: SubmissionGuard, *, partial: bool) -> None:
    """Go on without the items whose receivers may not be called, if some may be left out.

    Raises:
        CallbackRefused: none may be.
        BatchRefused: nothing is left.
    """
    if not partial:
        await guard.check_all(intake.receivers)
    elif refused := await guard.refusals(intake.receivers):
        intake.withdraw(refused)
        some_good(intake)
