"""Hand in a batch of tasks, follow it, read its results, cancel it, run what failed again."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from api import batch_examples as examples
from api import rate_limits
from api.batch_bodies import all_good, check_receivers, some_good, take_in
from api.callers import CallerDependency, caller_of, check
from api.dead_letters import carry_out, object_or_nothing
from api.dependencies import Services, ServicesDependency
from api.errors import retry_seconds, status_of
from api.requests import (
    POSSIBLE,
    batch_id_for,
    idempotency_key,
    traceparent,
    validated,
    wait_seconds,
)
from api.tasks import MAX_PAGE, document
from api.waiting import watched
from orchestrator.admission import count_refusal
from orchestrator.batches import (
    MAX_ITEMS,
    BatchAccepted,
    BatchPage,
    BatchRehearsal,
    BatchStatus,
)
from orchestrator.batching import Intake, most_text_bytes
from orchestrator.dead_letters import (
    BatchRedrive,
    BulkAction,
    BulkRequest,
    BulkStatus,
    DeadLetterFilter,
)
from orchestrator.engine.batch_starts import SubmittedBatch
from orchestrator.errors import (
    AgentUnavailable,
    BatchNotFound,
    EngineUnavailable,
    QueueFull,
    QuotaExceeded,
)
from orchestrator.models import Plan, TaskState
from orchestrator.security.callers import Caller
from orchestrator.statuses import TaskStatus, Verdict
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger

router = APIRouter(tags=["batches"])
log = get_logger(__name__)

NDJSON = "application/x-ndjson"
_LINES_AT_ONCE = 100

BatchId = Annotated[
    str,
    Path(min_length=1, max_length=500, description="As POST /orchestrate/batch gave it"),
    POSSIBLE,
]


@router.post(
    "/orchestrate/batch",
    status_code=HTTPStatus.ACCEPTED,
    response_model=BatchAccepted,
    summary="Submit a batch of tasks",
    responses=examples.SUBMIT_BATCH_RESPONSES,
    openapi_extra=examples.SUBMIT_BATCH,
)
async def orchestrate_batch(
    request: Request,
    services: ServicesDependency,
    partial: Annotated[  # noqa: FBT002 - a query parameter has a name
        bool, Query(description="Start the good items even if others are wrong")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002 - a query parameter has a name
        bool, Query(description="Only say what is wrong, or which agents would be called")
    ] = False,
) -> Response:
    """Start up to 10,000 tasks durably by one request; nothing is started unless all are good.

    A JSON array, or one task a line. The item at position n has its own task id, which
    GET /status answers for; the pages of GET /batches/{batch_id}/results name them all.
    """
    if dry_run:
        return document(await _rehearse(request, services, partial=partial))
    return await _answer(request, services, *await _accept(request, services, partial=partial))


async def _accept(
    request: Request, services: Services, *, partial: bool
) -> tuple[BatchAccepted, dict[str, str]]:
    """What the request is answered with, and the headers that tell of replays and limits."""
    began = time.perf_counter()
    intake = _intake(request, services)
    try:
        digest = await _take_in(request, services, intake, partial=partial)
        submitted, plans, limits = await _submit(request, services, intake, digest)
    except Exception as error:
        seconds, agent = time.perf_counter() - began, getattr(error, "agent", None)
        metrics.submission(agent, status_of(error), seconds, max(intake.seen, 1))
        raise
    for agent, count in intake.agents(plans).items():
        metrics.submission(agent, HTTPStatus.ACCEPTED, time.perf_counter() - began, count)
    status = submitted.status
    log.info(
        "batch_accepted" if submitted.created else "batch_replayed",
        batch_id=status.batch_id,
        total=status.total,
        rejected=intake.bad_items,
    )
    accepted = BatchAccepted(
        **dict(status), rejected=tuple(intake.bad), rejected_items=intake.bad_items
    )
    return accepted, limits if submitted.created else {"Idempotency-Replayed": "true"}


def _intake(request: Request, services: Services) -> Intake:
    most = services.settings.limits.max_payload_bytes
    return Intake(
        services.routes,
        most,
        services.guard.read,
        max_text_bytes=most_text_bytes(services.settings),
        caller=caller_of(request),
    )


async def check_batch(caller: Caller, services: Services, batch_id: str) -> None:
    """Raises BatchNotFound where it is another tenant's."""
    batches = services.tasks.batches
    await check(caller, lambda: batches.status(batch_id), BatchNotFound(batch_id))


async def _take_in(
    request: Request, services: Services, intake: Intake, *, partial: bool
) -> str | None:
    """Have the intake take the items; their fingerprint, if there is an idempotency key."""
    fingerprinted = idempotency_key(request) is not None
    most = services.settings.limits.max_batch_bytes
    digest = await take_in(request, intake, most, fingerprinted=fingerprinted)
    (some_good if partial else all_good)(intake)
    await check_receivers(intake, services.guard, partial=partial)
    return digest


async def _rehearse(request: Request, services: Services, *, partial: bool) -> BatchRehearsal:
    """What a submission would lead to now; nothing is started."""
    intake = _intake(request, services)
    await _take_in(request, services, intake, partial=partial)
    plans: Sequence[Plan] = intake.plans
    verdict = Verdict(admitted=True, status_code=HTTPStatus.ACCEPTED)
    try:
        plans = await services.admission.admitted_batch(plans)
    except (AgentUnavailable, QueueFull) as error:
        verdict = Verdict(
            admitted=False,
            status_code=status_of(error),
            detail=str(error),
            retry_after=int(rate_limits.retry_after(retry_seconds(error))),
        )
    return BatchRehearsal(
        total=intake.taken,
        agents=intake.agents(plans),
        admission=verdict,
        rejected=tuple(intake.bad),
        rejected_items=intake.bad_items,
    )


async def _submit(
    request: Request, services: Services, intake: Intake, digest: str | None
) -> tuple[SubmittedBatch, Sequence[Plan], dict[str, str]]:
    """Start the batch, or find it; with the plans of its items, and the headers of its limits."""
    batch_id = batch_id_for(idempotency_key(request), intake.tenants)
    try:
        async with services.quotas.admitted(intake.tenants, intake.taken) as grant:
            plans = await services.admission.admitted_batch(intake.plans)
            parts = intake.parts(
                batch_id,
                plans,
                services.admission.limits.of,
                datetime.now(UTC),
                traceparent(request),
            )
            submitted = await services.tasks.batches.starts.submit(batch_id, parts, digest)
            if grant:
                grant.replayed = not submitted.created
    except (AgentUnavailable, QueueFull, QuotaExceeded) as refusal:
        replayed = None if digest is None else await _replayed(services, batch_id, digest)
        if replayed is None:
            agent = getattr(refusal, "agent", intake.plans[0].agent)
            count_refusal(agent, refusal)
            log.info("batch_refused", agent=agent, total=intake.taken, reason=str(refusal))
            raise
        return replayed, intake.plans, {}
    return submitted, plans, rate_limits.granted(grant)


async def _replayed(services: Services, batch_id: str, digest: str) -> SubmittedBatch | None:
    """The batch that was accepted before under its key, which no refusal takes back."""
    try:
        return await services.tasks.batches.starts.existing(batch_id, digest)
    except (BatchNotFound, EngineUnavailable):
        return None


async def _answer(
    request: Request,
    services: Services,
    accepted: BatchAccepted,
    further: dict[str, str],
) -> Response:
    batch_id = accepted.batch_id
    headers = {"Location": f"/batches/{batch_id}", **further}
    if wait := wait_seconds(request):
        headers["Preference-Applied"] = f"wait={wait}"
        # The batch is durable: failing to watch it must not read as failing to take it.
        with contextlib.suppress(EngineUnavailable):
            status = await _watched(services, batch_id, wait)
            accepted = accepted.model_copy(update=dict(status))
    code = HTTPStatus.OK if accepted.status.is_final else HTTPStatus.ACCEPTED
    return document(accepted, code, headers)


async def _watched(services: Services, batch_id: str, wait: float) -> BatchStatus:
    batches = services.tasks.batches
    return await watched(services, lambda seconds: batches.status(batch_id, seconds), wait)


@router.get(
    "/batches",
    response_model=BatchPage,
    summary="List batches",
    responses=examples.LIST_RESPONSES,
)
async def batches(
    caller: CallerDependency,
    services: ServicesDependency,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
) -> Response:
    """Batches, newest first; the list lags behind by some 100 ms.

    A page may hold fewer than ``limit`` batches; the list ends where ``next_cursor`` is null.
    """
    return document(await services.tasks.batches.lists.page(limit, cursor, caller.bound))


@router.get(
    "/batches/{batch_id}",
    response_model=BatchStatus,
    summary="Follow a batch",
    responses=examples.STATUS_RESPONSES,
)
async def status(batch_id: BatchId, request: Request, services: ServicesDependency) -> Response:
    """How many of its items have ended, and how; needs no worker.

    With ``Prefer: wait=N`` answered as soon as the batch has ended, or after N seconds.
    """
    await check_batch(caller_of(request), services, batch_id)
    wait = wait_seconds(request)
    headers = {"Preference-Applied": f"wait={wait}"} if wait else None
    return document(await _watched(services, batch_id, wait), HTTPStatus.OK, headers)


@router.get(
    "/batches/{batch_id}/results",
    response_class=StreamingResponse,
    summary="Read a batch's results",
    responses=examples.RESULTS_RESPONSES,
)
async def results(
    batch_id: BatchId,
    caller: CallerDependency,
    services: ServicesDependency,
    status: Annotated[TaskState | None, Query(description="Only items in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_ITEMS)] = 1000,
    cursor: Annotated[str | None, Query(description="X-Next-Cursor of the page before")] = None,
) -> Response:
    """Its items in their order, one a line, as GET /status shows each; those that wait too.

    A page ends early where its results are large; the last page has no ``X-Next-Cursor``.
    """
    await check_batch(caller, services, batch_id)
    items, following = await services.tasks.batches.page(batch_id, limit, cursor, status)
    headers = {}
    if following is not None:
        query = {"limit": limit, "cursor": following} | ({"status": status} if status else {})
        target = f"/batches/{quote(batch_id, safe='')}/results?{urlencode(query)}"
        headers = {"X-Next-Cursor": following, "Link": f'<{target}>; rel="next"'}
    return StreamingResponse(_lines(items), HTTPStatus.OK, headers, media_type=NDJSON)


async def _lines(items: Sequence[TaskStatus]) -> AsyncIterator[str]:
    for begin in range(0, len(items), _LINES_AT_ONCE):
        some = items[begin : begin + _LINES_AT_ONCE]
        yield "".join(each.model_dump_json() + "\n" for each in some)


@router.post(
    "/batches/{batch_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=BatchStatus,
    summary="Cancel a batch",
    responses=examples.CANCEL_RESPONSES,
)
async def cancel(
    batch_id: BatchId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """Ask it to end; calls in flight are cut off. Items that have ended stay as they are."""
    await check_batch(caller, services, batch_id)
    found = await services.tasks.batches.cancel(batch_id)
    log.info("batch_cancel_requested", batch_id=batch_id, pending=found.pending)
    return document(found, HTTPStatus.ACCEPTED)


@router.post(
    "/batches/{batch_id}/redrive",
    status_code=HTTPStatus.ACCEPTED,
    response_model=BulkStatus,
    summary="Redrive a batch's failed items",
    responses=examples.REDRIVE_RESPONSES,
    openapi_extra=examples.REDRIVE,
)
async def redrive(batch_id: BatchId, request: Request, services: ServicesDependency) -> Response:
    """Run every item again that waits among the dead letters, ``rate`` a second; durable.

    The items keep their task ids, and the batch counts them by how they end then.
    """
    terms = validated(BatchRedrive, await object_or_nothing(request))
    caller = caller_of(request)
    await check_batch(caller, services, batch_id)
    await services.tasks.batches.status(batch_id)
    wanted = BulkRequest(filter=DeadLetterFilter(batch=batch_id), **dict(terms))
    return await carry_out(services, caller, BulkAction.REDRIVE, wanted)
