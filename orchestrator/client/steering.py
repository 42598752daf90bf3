"""The calls of operators: agents, dead letters, and the state of the whole."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from orchestrator.client.calls import (
    JSON,
    Call,
    Pages,
    as_model,
    document,
    given,
    parsed,
    path_of,
    query,
    selecting,
)
from orchestrator.client.errors import UnexpectedAnswer
from orchestrator.client.parts import PAGE, posted
from orchestrator.dead_letters import (
    BulkAction,
    BulkMatch,
    BulkStatus,
    DeadLetterDetail,
    DeadLetterItem,
    DeadLetterPage,
    Discarded,
)
from orchestrator.fleet.views import AgentDetail, AgentEvents, AgentList
from orchestrator.models import LimitMode
from orchestrator.statuses import Health, TaskStatus


def agents() -> Call[AgentList]:
    """All agents, and how fresh that is."""
    return Call("GET", "/agents", as_model(AgentList))


def agent(name: str) -> Call[AgentDetail]:
    """One agent, with the latest events."""
    return Call("GET", path_of("agents", name), as_model(AgentDetail))


def agent_events(*, agent: str | None = None, limit: int | None = None) -> Call[AgentEvents]:
    """What happened to the agents, or to one, the latest first."""
    params = query(agent=agent, limit=limit)
    return Call("GET", "/fleet/events", as_model(AgentEvents), params=params)


def _ordered(name: str, order: str, **fields: Any) -> Call[AgentDetail]:
    return posted(AgentDetail, path_of("agents", name, order), given(**fields))


def drain(name: str, *, instance: str | None = None, reason: str = "") -> Call[AgentDetail]:
    """Send an agent, or one instance, no new calls; those under way go on."""
    return _ordered(name, "drain", instance=instance, reason=reason)


def resume(name: str, *, instance: str | None = None, reason: str = "") -> Call[AgentDetail]:
    """Send calls again to what was drained."""
    return _ordered(name, "resume", instance=instance, reason=reason)


def trip(name: str, *, instance: str | None = None, reason: str = "") -> Call[AgentDetail]:
    """Hold the breaker open until a reset."""
    return _ordered(name, "trip", instance=instance, reason=reason)


def reset(name: str, *, instance: str | None = None, reason: str = "") -> Call[AgentDetail]:
    """Close the breaker and forget what it counted."""
    return _ordered(name, "reset", instance=instance, reason=reason)


def disable_breaker(
    name: str, *, instance: str | None = None, reason: str = ""
) -> Call[AgentDetail]:
    """Admit every call, whatever fails, until a reset."""
    return _ordered(name, "disable_breaker", instance=instance, reason=reason)


def limit(
    name: str,
    *,
    rate: float | None = None,
    burst: int | None = None,
    mode: LimitMode | str | None = None,
    max_connections: int | None = None,
    clear: bool = False,
    reason: str = "",
) -> Call[AgentDetail]:
    """Set an agent's limits; what is not named stays, ``clear`` takes all back first."""
    return _ordered(
        name,
        "limit",
        rate=rate,
        burst=burst,
        mode=mode,
        max_connections=max_connections,
        clear=clear or None,
        reason=reason,
    )


def add_instance(
    name: str, url: str, *, weight: int | None = None, reason: str = ""
) -> Call[AgentDetail]:
    """Add an instance at run time, or give a known one another weight."""
    return _ordered(name, "instances", url=url, weight=weight, reason=reason)


def remove_instance(name: str, url: str, *, reason: str = "") -> Call[AgentDetail]:
    """Take an instance away."""
    return Call(
        "DELETE",
        path_of("agents", name, "instances"),
        as_model(AgentDetail),
        headers={"Content-Type": JSON},
        content=document(given(url=url, reason=reason)),
        repeatable=False,
    )


def dead_letter_page(
    *,
    agent: str | None = None,
    pattern: str | None = None,
    tenant: str | None = None,
    priority: int | None = None,
    batch: str | None = None,
    error_type: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[DeadLetterPage]:
    """One page of the dead letters that match all filters, newest first."""
    params = query(
        agent=agent,
        pattern=pattern,
        tenant=tenant,
        priority=priority,
        batch=batch,
        error_type=error_type,
        since=since,
        until=until,
        limit=limit,
        cursor=cursor,
    )
    return Call("GET", "/dead-letters", as_model(DeadLetterPage), params=params)


def dead_letters(
    *,
    agent: str | None = None,
    pattern: str | None = None,
    tenant: str | None = None,
    priority: int | None = None,
    batch: str | None = None,
    error_type: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Pages[DeadLetterItem]:
    """All dead letters that match the filters, newest first, read page by page."""
    params = query(
        agent=agent,
        pattern=pattern,
        tenant=tenant,
        priority=priority,
        batch=batch,
        error_type=error_type,
        since=since,
        until=until,
        limit=PAGE,
    )

    def read(response: httpx.Response) -> tuple[Sequence[DeadLetterItem], str | None]:
        page = parsed(DeadLetterPage, response.content, response)
        return page.dead_letters, page.next_cursor

    return Pages(
        lambda cursor: Call("GET", "/dead-letters", read, params=params | query(cursor=cursor))
    )


def dead_letter(task_id: str) -> Call[DeadLetterDetail]:
    """The request of a dead letter, its attempts, and the runs before."""
    return Call("GET", path_of("dead-letters", task_id), as_model(DeadLetterDetail))


def redrive(task_id: str, *, reason: str = "", by: str = "") -> Call[TaskStatus]:
    """Run a dead letter's task again under its id."""
    path = path_of("dead-letters", task_id, "redrive")
    return posted(TaskStatus, path, given(reason=reason, by=by), repeatable=False)


def discard(task_id: str, *, reason: str = "", by: str = "") -> Call[Discarded]:
    """Give a dead letter's task up: it stays failed."""
    path = path_of("dead-letters", task_id, "discard")
    return posted(Discarded, path, given(reason=reason, by=by), repeatable=False)


def resolve_many(
    action: BulkAction | str,
    *,
    everything: bool = False,
    rate: float | None = None,
    reason: str = "",
    by: str = "",
    **filters: Any,
) -> Call[BulkStatus]:
    """``redrive`` or ``discard`` all dead letters that the filters select, ``rate`` a second."""
    body = given(
        rate=rate, reason=reason, by=by, all=everything or None, filter=selecting(**filters) or None
    )
    return posted(BulkStatus, path_of("dead-letters", action), body, repeatable=False)


def count_dead_letters(*, everything: bool = False, **filters: Any) -> Call[BulkMatch]:
    """How many dead letters the filters select now."""
    body = given(dry_run=True, all=everything or None, filter=selecting(**filters) or None)
    return posted(BulkMatch, "/dead-letters/redrive", body)


def redrive_status(redrive_id: str) -> Call[BulkStatus]:
    """How far an order about many has come."""
    return Call("GET", path_of("dead-letters", "redrives", redrive_id), as_model(BulkStatus))


def cancel_redrive(redrive_id: str) -> Call[BulkStatus]:
    """Leave the rest of an order about many as it is."""
    return posted(BulkStatus, path_of("dead-letters", "redrives", redrive_id, "cancel"), {})


def health() -> Call[Health]:
    """Whether all is well; an API whose engine is away says ``unhealthy``."""
    return Call("GET", "/health", as_model(Health), accepts=frozenset({503}))


def metrics() -> Call[dict[str, Any]]:
    """The numbers of GET /metrics."""

    def read(response: httpx.Response) -> dict[str, Any]:
        try:
            return dict(response.json())
        except (TypeError, ValueError):
            raise UnexpectedAnswer("GET /metrics did not answer JSON") from None

    return Call("GET", "/metrics", read, headers={"Accept": JSON})
