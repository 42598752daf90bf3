"""Reports as histories hold them, read even if a result in one nests too deep for the converter."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

MAX_LEVELS = 180
"""Of a result that can be read again, within whatever it is answered in."""
TOO_DEEP = f"The result is left out, since it nests deeper than {MAX_LEVELS} levels"

_UNREADABLE = (ApplicationError, RuntimeError, LookupError, ValueError)

M = TypeVar("M", bound=BaseModel)


async def readable(
    converter: DataConverter, payloads: Sequence[Payload], kind: type[M]
) -> M | None:
    """What a payload holds; None without one, and for what was sent by hand and nobody can read.

    Of outcomes whose results nest too deep the rest is read: they are left out, and ``error`` says
    so.
    """
    if not payloads:
        return None
    try:
        found = await converter.decode(payloads, [kind])
        return found[0] if found and isinstance(found[0], kind) else None
    except _UNREADABLE:
        pass
    try:
        [raw] = await converter.decode(payloads[:1], [RawValue])
        return kind.model_validate(_without_depths(json.loads(raw.payload.data)))
    except _UNREADABLE:
        return None


def size_of(payloads: Sequence[Payload]) -> int:
    """Bytes of the payloads, those included that a storage keeps."""
    return sum(
        len(each.data) + sum(stored.size_bytes for stored in each.external_payloads)
        for each in payloads
    )


def _without_depths(report: Any) -> Any:
    outcomes = report.get("outcomes") if isinstance(report, dict) else None
    for outcome in outcomes if isinstance(outcomes, list) else ():
        if isinstance(outcome, dict) and _is_too_deep(outcome.get("result")):
            outcome.update(result=None, left_out=True, error=TOO_DEEP)
    return report


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_LEVELS + 1):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return False
    return True


def _inner(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
