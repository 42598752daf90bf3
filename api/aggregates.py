"""Join many tasks into one answer: those that exist, and those that are started for it."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api import aggregate_examples as examples
from api import rate_limits
from api.batch_bodies import all_good
from api.callers import CallerDependency, caller_of
from api.dependencies import Services, ServicesDependency
from api.errors import status_of
from api.requests import (
    POSSIBLE,
    fingerprint,
    idempotency_key,
    json_object,
    task_id_of,
    traceparent,
    validated,
    wait_seconds,
)
from api.tasks import document
from api.waiting import watched
from orchestrator.admission import count_refusal
from orchestrator.aggregate_status import AggregateState, AggregateStatus
from orchestrator.aggregates import AggregateRequest, Aggregation
from orchestrator.batches import PART_BYTES, Batch
from orchestrator.batching import Intake
from orchestrator.engine.aggregates import SubmittedAggregate
from orchestrator.errors import (
    AgentUnavailable,
    AggregateNotFound,
    EngineUnavailable,
    QueueFull,
    QuotaExceeded,
)
from orchestrator.models import DEFAULT_TENANT
from orchestrator.security.callers import Caller
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger

router = APIRouter(prefix="/aggregate", tags=["aggregates"])
log = get_logger(__name__)

MAX_BODY_BYTES = 8 * 1024 * 1024
"""More than what fits into one aggregate, however its JSON is written."""
DEFAULT_WAIT_SECONDS = 30
_KEYS = "aggregate"
_REPLAYED = {"Idempotency-Replayed": "true"}

AggregateId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=500,
        description="As POST /aggregate gave it, or the id of a workflow AggregateTasks",
    ),
    POSSIBLE,
]


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=AggregateStatus,
    summary="Join tasks",
    responses=examples.SUBMIT_RESPONSES,
    openapi_extra=examples.SUBMIT,
)
async def aggregate(request: Request, services: ServicesDependency) -> Response:
    """Join tasks by their ids, in whatever state they are, with tasks that are started for it.

    Answered with 200 when the condition holds or can hold no more, after ``Prefer: wait=N`` seconds
    (30 without it) with 202 and what there is. With ``Idempotency-Key`` a repeated request gets the
    first one's aggregate.
    """
    status, further = await _submit(request, services)
    aggregate_id = status.aggregate_id
    headers = {"Location": f"/aggregate/{aggregate_id}", **further}
    wait = wait_seconds(request, DEFAULT_WAIT_SECONDS)
    if "prefer" in request.headers:
        headers["Preference-Applied"] = f"wait={wait}"
    # The aggregate is durable: failing to watch it must not read as failing to take it.
    with contextlib.suppress(EngineUnavailable):
        status = await _watched(services, aggregate_id, wait)
    return document(status, _code(status), headers)


def _code(status: AggregateStatus) -> HTTPStatus:
    running = status.status is AggregateState.RUNNING
    return HTTPStatus.ACCEPTED if running else HTTPStatus.OK


async def _submit(request: Request, services: Services) -> tuple[AggregateStatus, dict[str, str]]:
    """Start the aggregate, or find it, as far as it is known so; with headers that say which."""
    body = await json_object(request, MAX_BODY_BYTES)
    key = idempotency_key(request)
    caller = caller_of(request)
    aggregate_id = task_id_of(key, _keys_of(caller)) if key else str(uuid.uuid4())
    # Thousands of tasks take their time, in which others are answered.
    wanted, intake = await asyncio.to_thread(_taken_in, body, services, caller)
    await services.guard.check_all(intake.receivers)
    digest = await asyncio.to_thread(fingerprint, wanted) if key else None
    total = len(set(wanted.task_ids)) + intake.taken
    began, now = time.perf_counter(), datetime.now(UTC)
    try:
        async with services.quotas.admitted(
            intake.tenants or {caller.tenant or DEFAULT_TENANT}, intake.taken
        ) as grant:
            plans = await services.admission.admitted_batch(intake.plans)
            limit_of = services.admission.limits.of
            parts = intake.parts(aggregate_id, plans, limit_of, now, traceparent(request))
            bounds = {"tenant": _tenant_of(wanted, intake, caller), "knows_only": caller.bound}
            aggregation = _aggregation(wanted, parts, now).model_copy(update=bounds)
            submitted = await services.aggregates.submit(aggregate_id, aggregation, now, digest)
            if grant:
                grant.replayed = not submitted.created
    except (AgentUnavailable, QueueFull, QuotaExceeded) as refusal:
        replayed = None if digest is None else await _replayed(services, aggregate_id, digest)
        if replayed is not None:
            return _begun(aggregate_id, total, replayed), _REPLAYED
        _tell_refused(refusal, intake, time.perf_counter() - began)
        raise
    for agent, count in intake.agents(plans).items():
        metrics.submission(agent, HTTPStatus.ACCEPTED, time.perf_counter() - began, count)
    log.info(
        "aggregate_accepted" if submitted.created else "aggregate_replayed",
        aggregate_id=aggregate_id,
        task_ids=len(aggregation.task_ids),
        tasks=intake.taken,
    )
    further = rate_limits.granted(grant) if submitted.created else _REPLAYED
    return _begun(aggregate_id, total, submitted), further


def _tell_refused(
    refusal: AgentUnavailable | QueueFull | QuotaExceeded, intake: Intake, seconds: float
) -> None:
    agent = getattr(refusal, "agent", intake.plans[0].agent if intake.plans else "")
    count_refusal(agent, refusal)
    metrics.submission(agent, status_of(refusal), seconds, intake.taken)
    log.info("aggregate_refused", agent=agent, tasks=intake.taken, reason=str(refusal))


def _begun(aggregate_id: str, total: int, submitted: SubmittedAggregate) -> AggregateStatus:
    """What is known of an aggregate by its request."""
    return AggregateStatus(
        aggregate_id=aggregate_id,
        status=AggregateState.RUNNING,
        total_tasks=total,
        completed=0,
        failed=0,
        cancelled=0,
        pending=total,
        created_at=submitted.created_at,
        updated_at=submitted.created_at,
    )


def _keys_of(caller: Caller) -> str:
    """Whose idempotency keys these are: an aggregate may join tasks of several tenants."""
    return _KEYS if caller.bound is None else f"{_KEYS}\n{caller.bound}"


def _tenant_of(wanted: AggregateRequest, intake: Intake, caller: Caller) -> str | None:
    """Whose the aggregate is; None where it may join tasks of several."""
    if caller.bound is None and not wanted.task_ids and len(intake.tenants) == 1:
        return next(iter(intake.tenants))
    return caller.bound


def _taken_in(
    body: dict[str, Any], services: Services, caller: Caller
) -> tuple[AggregateRequest, Intake]:
    """The request, and the tasks that are to be started, routed.

    Raises:
        BatchRefused: with each task that is wrong.
        RequestValidationError: with everything else that is.
    """
    most = services.settings.limits.max_payload_bytes
    intake = Intake(services.routes, most, services.guard.read, caller=caller)
    given = body.get("tasks")
    for each in given if isinstance(given, list) else ():
        intake.offer(each)
    all_good(intake)
    return validated(AggregateRequest, body), intake


def _aggregation(
    wanted: AggregateRequest, parts: Sequence[Batch], created_at: datetime
) -> Aggregation:
    """What the aggregate's workflow starts with.

    Raises:
        HTTPException: 413 when its tasks are too many bytes.
    """
    if len(parts) > 1:
        raise HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The tasks are over the {PART_BYTES:,} bytes that an aggregate takes; send them to "
            "POST /orchestrate/batch, and their ids here",
        )
    # Its id becomes known when the aggregate begins.
    batch = parts[0].model_copy(update={"batch_id": None}) if parts else None
    return Aggregation(
        task_ids=tuple(dict.fromkeys(wanted.task_ids)),
        batch=batch,
        join=wanted.join,
        deadline=wanted.deadline,
        on_met=wanted.on_met,
        on_failure=wanted.on_failure,
        merge=wanted.merge,
        created_at=created_at,
    )


async def _replayed(
    services: Services, aggregate_id: str, digest: str
) -> SubmittedAggregate | None:
    """The aggregate that was accepted before under its key, which no refusal takes back."""
    try:
        return await services.aggregates.existing(aggregate_id, digest)
    except (AggregateNotFound, EngineUnavailable):
        return None


async def check_aggregate(caller: Caller, services: Services, aggregate_id: str) -> None:
    """Raises AggregateNotFound where it is another tenant's."""
    if caller.bound and not caller.sees(await services.aggregates.tenant(aggregate_id)):
        raise AggregateNotFound(aggregate_id)


async def _watched(services: Services, aggregate_id: str, wait: float) -> AggregateStatus:
    aggregates = services.aggregates
    return await watched(services, lambda seconds: aggregates.status(aggregate_id, seconds), wait)


@router.get(
    "/{aggregate_id}",
    response_model=AggregateStatus,
    summary="Follow an aggregate",
    responses=examples.STATUS_RESPONSES,
    openapi_extra=examples.FOLLOW,
)
async def status(
    aggregate_id: AggregateId, request: Request, services: ServicesDependency
) -> Response:
    """What its tasks have come to until now; needs no worker.

    With ``Prefer: wait=N`` answered as soon as the aggregate has ended, or after N seconds.
    """
    await check_aggregate(caller_of(request), services, aggregate_id)
    wait = wait_seconds(request)
    headers = {"Preference-Applied": f"wait={wait}"} if wait else None
    return document(await _watched(services, aggregate_id, wait), HTTPStatus.OK, headers)


@router.post(
    "/{aggregate_id}/redrive",
    status_code=HTTPStatus.ACCEPTED,
    response_model=AggregateStatus,
    summary="Redrive an aggregate's failed tasks",
    responses=examples.REDRIVE_RESPONSES,
)
async def redrive(
    aggregate_id: AggregateId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """Run those of its tasks again that wait among the dead letters, and join them anew.

    The tasks and the aggregate keep their ids; an aggregate that has ended runs again.
    """
    await check_aggregate(caller, services, aggregate_id)
    found = await services.aggregates.redrive(aggregate_id)
    log.info("aggregate_redriven", aggregate_id=aggregate_id)
    return document(found, HTTPStatus.ACCEPTED)


@router.post(
    "/{aggregate_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=AggregateStatus,
    summary="Cancel an aggregate",
    responses=examples.CANCEL_RESPONSES,
)
async def cancel(
    aggregate_id: AggregateId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """Join no more, and cancel the tasks that it started; those that it was given go on."""
    await check_aggregate(caller, services, aggregate_id)
    found = await services.aggregates.cancel(aggregate_id)
    log.info("aggregate_cancel_requested", aggregate_id=aggregate_id)
    return document(found, HTTPStatus.ACCEPTED)
