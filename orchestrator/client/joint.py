"""The calls about many tasks: batches and aggregates."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from orchestrator.aggregate_status import AggregateState, AggregateStatus
from orchestrator.aggregates import Join, Merge, OnFailure, OnMet
from orchestrator.batches import BatchAccepted, BatchPage, BatchRehearsal, BatchStatus
from orchestrator.client.attempts import Wait
from orchestrator.client.calls import (
    NDJSON,
    Call,
    Pages,
    as_model,
    document,
    given,
    parsed,
    path_of,
    prefer,
    query,
)
from orchestrator.client.parts import PAGE, Key, keyed, posted, submitted, task_fields
from orchestrator.dead_letters import BulkStatus
from orchestrator.models import TaskRequest, TaskState
from orchestrator.statuses import TaskStatus


def _lines(tasks: Iterable[TaskRequest | Mapping[str, Any]] | bytes) -> bytes:
    if isinstance(tasks, bytes):
        return tasks
    return b"".join(document(task_fields(task)) + b"\n" for task in tasks)


def batch(
    tasks: Iterable[TaskRequest | Mapping[str, Any]] | bytes,
    *,
    partial: bool = False,
    wait: float | None = None,
    idempotency_key: Key = None,
) -> Call[BatchAccepted]:
    """Submit up to 10,000 tasks by one request.

    Args:
        tasks: each a TaskRequest or its fields; or NDJSON, one task a line.
        partial: start the good ones even if others are wrong.
        wait: seconds for which the answer may wait for the end.
        idempotency_key: one batch for each; made anew if absent.
    """
    return Call(
        "POST",
        "/orchestrate/batch",
        as_model(BatchAccepted),
        params=query(partial=partial or None),
        headers={"Content-Type": NDJSON, **prefer(wait), **keyed(idempotency_key)},
        content=_lines(tasks),
        wait=wait or 0,
        repeatable=idempotency_key is not False,
    )


def batch_dry_run(
    tasks: Iterable[TaskRequest | Mapping[str, Any]] | bytes, *, partial: bool = False
) -> Call[BatchRehearsal]:
    """How many tasks each agent would get, and what is wrong with them; starts nothing."""
    return Call(
        "POST",
        "/orchestrate/batch",
        as_model(BatchRehearsal),
        params=query(dry_run=True, partial=partial or None),
        headers={"Content-Type": NDJSON},
        content=_lines(tasks),
    )


def batches() -> Pages[BatchStatus]:
    """All batches, newest first, read page by page."""

    def read(response: httpx.Response) -> tuple[Sequence[BatchStatus], str | None]:
        page = parsed(BatchPage, response.content, response)
        return page.batches, page.next_cursor

    return Pages(lambda cursor: Call("GET", "/batches", read, query(limit=PAGE, cursor=cursor)))


def batch_status(batch_id: str, *, wait: float | None = None) -> Call[BatchStatus]:
    """How many of a batch's tasks have ended, now or at the end within ``wait`` seconds."""
    return Call(
        "GET",
        path_of("batches", batch_id),
        as_model(BatchStatus),
        headers=prefer(wait),
        wait=wait or 0,
    )


def wait_batch(batch_id: str, *, timeout: float | None = None) -> Call[BatchStatus]:
    """A batch's status as soon as all of its tasks have ended.

    Raises:
        StillOpen: they have not within ``timeout`` seconds.
    """
    return Wait(
        "GET",
        path_of("batches", batch_id),
        as_model(BatchStatus),
        is_over=lambda found: found.status.is_final,
        patience=timeout,
    )


def results(batch_id: str, *, status: TaskState | str | None = None) -> Pages[TaskStatus]:
    """The tasks of a batch in their order, each with its result, read page by page."""

    def read(response: httpx.Response) -> tuple[Sequence[TaskStatus], str | None]:
        # Texts may hold what other ways of splitting take for the end of a line.
        lines = filter(None, response.content.split(b"\n"))
        found = [parsed(TaskStatus, line, response) for line in lines]
        return found, response.headers.get("x-next-cursor")

    path = path_of("batches", batch_id, "results")
    return Pages(lambda cursor: Call("GET", path, read, query(status=status, cursor=cursor)))


def cancel_batch(batch_id: str) -> Call[BatchStatus]:
    """Ask a batch to end; tasks that have ended stay as they are."""
    return posted(BatchStatus, path_of("batches", batch_id, "cancel"), {})


def redrive_batch(
    batch_id: str, *, rate: float | None = None, reason: str = "", by: str = ""
) -> Call[BulkStatus]:
    """Run every task of a batch again that waits among the dead letters, ``rate`` a second."""
    path = path_of("batches", batch_id, "redrive")
    return posted(BulkStatus, path, given(rate=rate, reason=reason, by=by), repeatable=False)


def aggregate(
    task_ids: Sequence[str] = (),
    *,
    tasks: Iterable[TaskRequest | Mapping[str, Any]] = (),
    join: Join | Mapping[str, Any] | str | None = None,
    deadline: float | None = None,
    on_met: OnMet | str | None = None,
    on_failure: OnFailure | str | None = None,
    merge: Merge | str | None = None,
    wait: float | None = 0,
    idempotency_key: Key = None,
) -> Call[AggregateStatus]:
    """Join tasks into one answer: those that exist, those that it starts, or both.

    Args:
        task_ids: of tasks that exist.
        tasks: to be started.
        join: ``all``, ``any``, ``{"at_least": k}`` or ``{"max_failed_percent": p}``.
        deadline: seconds after which it ends with what there is.
        on_met: ``leave`` or ``cancel_rest``.
        on_failure: ``continue`` or ``cancel_rest``.
        merge: ``list``, ``by_agent``, ``deep_merge`` or ``first``.
        wait: seconds for which the answer may wait for the end, 60 at most.
        idempotency_key: one aggregate for each; made anew if absent.
    """
    body = given(
        task_ids=list(task_ids),
        tasks=[task_fields(task) for task in tasks],
        join=join,
        deadline=deadline,
        on_met=on_met,
        on_failure=on_failure,
        merge=merge,
    )
    # Without a preference the API waits of its own accord.
    return submitted(AggregateStatus, "/aggregate", body, wait=wait or 0, key=idempotency_key)


def aggregate_status(aggregate_id: str, *, wait: float | None = None) -> Call[AggregateStatus]:
    """What an aggregate has joined, now or at its end within ``wait`` seconds."""
    return Call(
        "GET",
        path_of("aggregate", aggregate_id),
        as_model(AggregateStatus),
        headers=prefer(wait),
        wait=wait or 0,
    )


def wait_aggregate(aggregate_id: str, *, timeout: float | None = None) -> Call[AggregateStatus]:
    """An aggregate as soon as it has ended.

    Raises:
        StillOpen: it has not within ``timeout`` seconds.
    """
    return Wait(
        "GET",
        path_of("aggregate", aggregate_id),
        as_model(AggregateStatus),
        is_over=lambda found: found.status is not AggregateState.RUNNING,
        patience=timeout,
    )


def cancel_aggregate(aggregate_id: str) -> Call[AggregateStatus]:
    """End a join, and cancel the tasks that it started."""
    return posted(AggregateStatus, path_of("aggregate", aggregate_id, "cancel"), {})


def redrive_aggregate(aggregate_id: str) -> Call[AggregateStatus]:
    """Run those of its tasks again that wait among the dead letters, and join anew."""
    path = path_of("aggregate", aggregate_id, "redrive")
    return posted(AggregateStatus, path, {}, repeatable=False)
