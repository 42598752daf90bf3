"""Start a task that was asked for, over HTTP or by a message, or find the one that it repeats."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from api import rate_limits
from api.dependencies import Services
from api.requests import fingerprint, task_id_of
from orchestrator.admission import Ticket, count_refusal
from orchestrator.coalescing import Item
from orchestrator.engine.tasks import Submitted
from orchestrator.errors import (
    AgentUnavailable,
    EngineUnavailable,
    QueueFull,
    QuotaExceeded,
    RateLimited,
    TaskNotFound,
)
from orchestrator.models import Dispatch, Plan, ReplyTo, Task, TaskRequest
from orchestrator.security.quotas import Grant
from orchestrator.telemetry.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Wish:
    """A request with the route that the configuration gives it.

    Args:
        asked: the request.
        plan: its route.
        key: the idempotency key, if it has one.
        trace: the caller's W3C trace context.
        reply: where the result is to be sent, if anybody waits for it at the broker.
    """

    asked: TaskRequest
    plan: Plan
    key: str | None = None
    trace: str | None = None
    reply: ReplyTo | None = None


async def planned(services: Services, asked: TaskRequest) -> Plan:
    """The route that the configuration gives a request, whose receiver may be called.

    Raises:
        CallbackRefused: it may not.
        UnknownPattern: there is none.
    """
    if asked.callback_url:
        await services.guard.check(str(asked.callback_url))
    return services.routes.plan(asked)


async def submit(services: Services, wish: Wish) -> tuple[Submitted, dict[str, str]]:
    """Start the task, or find it; with the headers that tell of the limits it counts towards.

    Raises:
        AgentUnavailable, RateLimited, QueueFull, QuotaExceeded: it may come later.
        IdempotencyConflict, PayloadTooLarge, EngineRefused: it may not come at all.
        EngineUnavailable: the engine may have it or not; the same key makes a repetition safe.
    """
    plan, key, tenant = wish.plan, wish.key, wish.asked.tenant
    item = None if services.quotas.counts_tasks(tenant) else _coalescible(wish)
    if item is None and plan.dispatch is Dispatch.COALESCED:
        plan = plan.model_copy(update={"dispatch": Dispatch.QUEUED})
    task_id = task_id_of(key, tenant) if key else str(uuid.uuid4())
    digest = fingerprint(wish.asked) if key else None
    try:
        async with (
            services.quotas.admitted([tenant]) as grant,
            services.admission.admitted(plan) as ticket,
        ):
            if item and ticket.plan.dispatch is Dispatch.COALESCED:
                submitted = await _start_with_others(services, item, ticket.plan)
            else:
                submitted = await services.tasks.submit(
                    _task(wish, ticket.plan), ticket.plan, task_id, datetime.now(UTC), digest
                )
            ticket.replayed = not submitted.created
            if grant:
                grant.replayed = ticket.replayed
    except (AgentUnavailable, RateLimited, QueueFull, QuotaExceeded) as refusal:
        replayed = None if digest is None else await _replayed(services, task_id, digest)
        if replayed is None:
            count_refusal(plan.agent, refusal)
            log.info("task_refused", agent=plan.agent, reason=str(refusal))
            raise
        return replayed, {}
    return submitted, _limits(grant, ticket) if submitted.created else {}


def _limits(grant: Grant | None, ticket: Ticket) -> dict[str, str]:
    """The headers of the tenant's limit and of the agent's, where there are such."""
    tenants = rate_limits.granted(grant)
    if ticket.decision is None:
        return tenants
    return rate_limits.both(tenants, rate_limits.accepted(ticket.plan.agent, ticket.decision))


def _coalescible(wish: Wish) -> Item | None:
    """The task as it is started with others; None where it must be started by itself.

    The engine keeps the ids of workflows unique, so one with a key needs a workflow.
    """
    if wish.plan.dispatch is not Dispatch.COALESCED or wish.key or wish.reply:
        return None
    item = Item.of(wish.asked, wish.trace)
    return None if item.is_large else item


async def _start_with_others(services: Services, item: Item, plan: Plan) -> Submitted:
    task_id, created_at = await services.coalescer.submit(item, plan)
    return Submitted.of(task_id, plan.agent, created_at, created=True)


def _task(wish: Wish, plan: Plan) -> Task:
    """The task with its plan; what it is made of has been validated."""
    further: dict[str, Any] = {"plan": plan, "traceparent": wish.trace}
    if wish.reply:
        further["reply"] = wish.reply
    return Task.model_construct(
        wish.asked.model_fields_set | further.keys(), **dict(wish.asked), **further
    )


async def _replayed(services: Services, task_id: str, digest: str) -> Submitted | None:
    """The task that was accepted before under its key, which no refusal takes back."""
    try:
        return await services.tasks.existing(task_id, digest)
    except (TaskNotFound, EngineUnavailable):
        return None
