"""W3C trace contexts as text: what every call carries, whether spans are made or not."""

import random
import re
import uuid

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def traced(header: str) -> bool:
    """Whether a ``traceparent`` is one."""
    return _TRACEPARENT.fullmatch(header) is not None


def trace_id_in(header: str | None) -> str | None:
    """The trace that a ``traceparent`` names."""
    return header.split("-")[1] if header and traced(header) else None


def trace_id_of(task_id: str) -> str:
    """The trace of a task whose caller has named none: the task's own id."""
    trace_id = task_id.replace("-", "")
    if _TRACE_ID.fullmatch(trace_id):
        return trace_id
    return uuid.uuid5(uuid.NAMESPACE_URL, task_id).hex


def traceparent(task_id: str) -> str:
    """A trace context whose trace id is the task's, for callers that sent none."""
    # Unique is enough: nobody need be unable to guess it.
    return f"00-{trace_id_of(task_id)}-{random.getrandbits(64):016x}-00"
