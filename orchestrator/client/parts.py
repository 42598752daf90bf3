"""Parts of the calls that several of them have."""

import uuid
from collections.abc import Mapping
from typing import Any, Literal

from orchestrator.client.calls import JSON, AnyModel, Call, as_model, document, prefer
from orchestrator.models import TaskRequest

Key = str | Literal[False] | None
"""An Idempotency-Key. None: a new one is made. False: none is sent, as tasks need that are to be
coalesced; what may have been done is then not sent again."""
PAGE = 200


def posted(
    kind: type[AnyModel], path: str, fields: Any, *, repeatable: bool = True
) -> Call[AnyModel]:
    """An order that is answered by a model."""
    return Call(
        "POST",
        path,
        as_model(kind),
        headers={"Content-Type": JSON},
        content=document(fields),
        repeatable=repeatable,
    )


def submitted(
    kind: type[AnyModel], path: str, fields: Any, *, wait: float | None, key: Key
) -> Call[AnyModel]:
    """A request that starts something, once for each key, and may wait for its end."""
    return Call(
        "POST",
        path,
        as_model(kind),
        headers={"Content-Type": JSON, **prefer(wait), **keyed(key)},
        content=document(fields),
        wait=wait or 0,
        repeatable=key is not False,
    )


def keyed(key: Key) -> dict[str, str]:
    """The header of an Idempotency-Key."""
    return {} if key is False else {"Idempotency-Key": key or str(uuid.uuid4())}


def task_fields(task: TaskRequest | Mapping[str, Any]) -> Mapping[str, Any]:
    """A task as the body has it: what was left open is not sent."""
    if isinstance(task, TaskRequest):
        return task.model_dump(mode="json", exclude_unset=True)
    return task
