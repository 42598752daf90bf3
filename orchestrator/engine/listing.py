"""Lists of tasks: what they select by, in the engine's query language, and the pages' cursors."""

import base64
import binascii
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.engine import search_attributes
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_TYPE

_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class TaskFilter:
    """What tasks are selected by; None selects all. Times are those of the start."""

    agent: str | None = None
    pattern: str | None = None
    status: TaskState | None = None
    tenant: str | None = None
    priority: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    batch: str | None = None


class InvalidCursor(ValueError):
    """A page cursor that this service did not give out."""


STATE_BY_NAME = {
    "Completed": TaskState.COMPLETED,
    "Failed": TaskState.FAILED,
    "TimedOut": TaskState.FAILED,
    "Terminated": TaskState.FAILED,
    "Canceled": TaskState.CANCELLED,
}
_OPEN = ("Running", "Paused")


def query(chosen: TaskFilter) -> str:
    """The engine's list filter for the tasks that are meant."""
    clauses = [f"WorkflowType = '{WORKFLOW_TYPE}'"]
    for attribute, value in (
        (search_attributes.AGENT, chosen.agent),
        (search_attributes.PATTERN, chosen.pattern),
        (search_attributes.TENANT, chosen.tenant),
        (search_attributes.BATCH, chosen.batch),
    ):
        if value is not None:
            clauses.append(f"{attribute.name} = {quoted(value)}")
    if chosen.priority is not None:
        clauses.append(f"{search_attributes.PRIORITY.name} = {chosen.priority}")
    if chosen.status is not None:
        names = [name for name, state in STATE_BY_NAME.items() if state is chosen.status] or _OPEN
        clauses.append(f"ExecutionStatus IN ({', '.join(map(quoted, names))})")
    if chosen.since is not None:
        clauses.append(f"StartTime >= {quoted(chosen.since.astimezone(UTC).isoformat())}")
    if chosen.until is not None:
        clauses.append(f"StartTime < {quoted(chosen.until.astimezone(UTC).isoformat())}")
    return " AND ".join(clauses)


def quoted(text: str) -> str:
    """A text in the engine's query language."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def encoded(token: bytes) -> str | None:
    """The engine's page token with a checksum, since the engine answers foreign ones badly."""
    return base64.urlsafe_b64encode(_checksum(token) + token).decode() if token else None


def decoded(cursor: str | None) -> bytes:
    """The engine's page token.

    Raises:
        InvalidCursor: the cursor is not one of ours.
    """
    if cursor is None:
        return b""
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidCursor(cursor) from None
    checksum, token = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    if not token or checksum != _checksum(token):
        raise InvalidCursor(cursor)
    return token


def _checksum(token: bytes) -> bytes:
    return zlib.crc32(token).to_bytes(_CHECKSUM_BYTES)
