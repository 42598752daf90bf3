"""The calls about tasks."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from orchestrator.cancellations import CancellationMatch, CancellationStatus
from orchestrator.client.attempts import Wait
from orchestrator.client.calls import (
    JSON,
    Call,
    Pages,
    as_model,
    document,
    given,
    parsed,
    path_of,
    prefer,
    query,
    selecting,
)
from orchestrator.client.parts import PAGE, Key, posted, submitted, task_fields
from orchestrator.models import TaskRequest, TaskState
from orchestrator.statuses import DryRun, TaskPage, TaskStatus


def _request(
    pattern: str | TaskRequest | Mapping[str, Any] | None,
    payload: Mapping[str, Any] | None,
    **others: Any,
) -> Mapping[str, Any]:
    """The body of a task: a whole one, or one made of its fields."""
    if isinstance(pattern, TaskRequest | Mapping):
        if payload is not None or given(**others):
            raise TypeError("a whole request stands for itself: name no fields beside it")
        return task_fields(pattern)
    return {"payload": {} if payload is None else payload, **given(pattern=pattern, **others)}


def submit(
    pattern: str | TaskRequest | Mapping[str, Any] | None = None,
    payload: Mapping[str, Any] | None = None,
    *,
    capabilities: Sequence[str] = (),
    priority: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    callback_url: str | None = None,
    tenant: str | None = None,
    wait: float | None = None,
    idempotency_key: Key = None,
) -> Call[TaskStatus]:
    """Submit a task; ``wait`` up to so many seconds, 60 at most, for its end.

    Args:
        pattern: which kind of task this is; or the whole task, without any field beside it.
        payload: what the agent gets.
        capabilities: what the agent must be able to do, where no pattern matches.
        priority: 5 is the most urgent, 1 the least.
        metadata: your own notes.
        timeout: seconds until the task must have ended.
        callback_url: who is to be told of the end.
        tenant: on whose behalf.
        wait: seconds; the status is the final one if the task ends within them.
        idempotency_key: one task for each; made anew if absent, so that sending again is safe.
    """
    body = _request(
        pattern,
        payload,
        capabilities=list(capabilities),
        priority=priority,
        metadata=metadata,
        timeout=timeout,
        callback_url=callback_url,
        tenant=tenant,
    )
    return submitted(TaskStatus, "/orchestrate", body, wait=wait, key=idempotency_key)


def dry_run(
    pattern: str | TaskRequest | Mapping[str, Any] | None = None,
    payload: Mapping[str, Any] | None = None,
    *,
    capabilities: Sequence[str] = (),
    priority: int | None = None,
    timeout: float | None = None,
    tenant: str | None = None,
) -> Call[DryRun]:
    """How a task would be routed, and what its submission would be answered; starts nothing."""
    body = _request(
        pattern,
        payload,
        capabilities=list(capabilities),
        priority=priority,
        timeout=timeout,
        tenant=tenant,
    )
    return Call(
        "POST",
        "/orchestrate",
        as_model(DryRun),
        params=query(dry_run=True),
        headers={"Content-Type": JSON},
        content=document(body),
    )


def status(task_id: str, *, wait: float | None = None) -> Call[TaskStatus]:
    """A task's status, now or as soon as it has ended within ``wait`` seconds."""
    return Call(
        "GET",
        path_of("status", task_id),
        as_model(TaskStatus),
        headers=prefer(wait),
        wait=wait or 0,
    )


def wait(task_id: str, *, timeout: float | None = None) -> Call[TaskStatus]:
    """A task's final status, as soon as it has ended.

    Raises:
        StillOpen: it has not within ``timeout`` seconds; None waits for as long as it takes.
    """
    return Wait(
        "GET",
        path_of("status", task_id),
        as_model(TaskStatus),
        is_over=lambda found: found.status.is_final,
        patience=timeout,
    )


def task_page(
    *,
    agent: str | None = None,
    pattern: str | None = None,
    status: TaskState | str | None = None,
    tenant: str | None = None,
    priority: int | None = None,
    batch: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[TaskPage]:
    """One page of the tasks that match all filters, newest first."""
    params = query(
        agent=agent,
        pattern=pattern,
        status=status,
        tenant=tenant,
        priority=priority,
        batch=batch,
        since=since,
        limit=limit,
        cursor=cursor,
    )
    return Call("GET", "/tasks", as_model(TaskPage), params=params)


def tasks(
    *,
    agent: str | None = None,
    pattern: str | None = None,
    status: TaskState | str | None = None,
    tenant: str | None = None,
    priority: int | None = None,
    batch: str | None = None,
    since: datetime | None = None,
) -> Pages[TaskStatus]:
    """All tasks that match the filters, newest first, read page by page."""
    params = query(
        agent=agent,
        pattern=pattern,
        status=status,
        tenant=tenant,
        priority=priority,
        batch=batch,
        since=since,
        limit=PAGE,
    )
    return Pages(lambda cursor: _tasks_after(params, cursor))


def _tasks_after(
    params: dict[str, str], cursor: str | None
) -> Call[tuple[Sequence[TaskStatus], str | None]]:
    def read(response: httpx.Response) -> tuple[Sequence[TaskStatus], str | None]:
        page = parsed(TaskPage, response.content, response)
        return page.tasks, page.next_cursor

    return Call("GET", "/tasks", read, params=params | query(cursor=cursor))


def cancel(task_id: str) -> Call[TaskStatus]:
    """Ask a task to end; one that has ended stays as it is."""
    return posted(TaskStatus, path_of("tasks", task_id, "cancel"), {})


def cancel_many(
    *,
    reason: str = "",
    by: str = "",
    everything: bool = False,
    **filters: Any,
) -> Call[CancellationStatus]:
    """Ask every open task to end that the filters select: agent, pattern, tenant, since, ..."""
    body = given(reason=reason, by=by, all=everything or None, filter=selecting(**filters) or None)
    return posted(CancellationStatus, "/tasks/cancel", body, repeatable=False)


def count_cancellable(*, everything: bool = False, **filters: Any) -> Call[CancellationMatch]:
    """How many open tasks ``cancel_many`` would mean now."""
    body = given(dry_run=True, all=everything or None, filter=selecting(**filters) or None)
    return posted(CancellationMatch, "/tasks/cancel", body)


def cancellation(order_id: str) -> Call[CancellationStatus]:
    """How far an order to cancel many has come."""
    return Call("GET", path_of("tasks", "cancellations", order_id), as_model(CancellationStatus))


def stop_cancellation(order_id: str) -> Call[CancellationStatus]:
    """Leave the rest as it is."""
    return posted(CancellationStatus, path_of("tasks", "cancellations", order_id, "stop"), {})


def change_priority(task_id: str, priority: int) -> Call[TaskStatus]:
    """Move a waiting task among the more or the less urgent ones."""
    return posted(TaskStatus, path_of("tasks", task_id, "priority"), {"priority": priority})
