"""Tasks that failed for good: look at them, run them again, give them up; one or many."""

import uuid
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, ValidationError
from starlette.responses import Response

from api import dead_letter_examples as examples
from api.callers import CallerDependency, by, caller_of, check, shown
from api.dependencies import Services, ServicesDependency
from api.requests import POSSIBLE, json_object, validated
from api.tasks import MAX_PAGE, FilterText, TaskId, document
from orchestrator.dead_letters import (
    BulkAction,
    BulkMatch,
    BulkOrder,
    BulkRequest,
    BulkStatus,
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLetterOrder,
    DeadLetterPage,
    Discarded,
)
from orchestrator.errors import DeadLetterNotFound, RedriveNotFound
from orchestrator.security.callers import Caller
from orchestrator.statuses import TaskStatus
from orchestrator.telemetry.logging import get_logger

router = APIRouter(prefix="/dead-letters", tags=["dead letters"])
log = get_logger(__name__)

MAX_BODY_BYTES = 64 * 1024
WHO = "api"
"""Who wants it, where the request does not say."""

RedriveId = Annotated[
    str,
    Path(min_length=1, max_length=100, description="As POST /dead-letters/redrive gave it"),
    POSSIBLE,
]


@router.get(
    "",
    response_model=DeadLetterPage,
    summary="List dead letters",
    responses=examples.LIST_RESPONSES,
)
async def dead_letters(
    caller: CallerDependency,
    services: ServicesDependency,
    agent: FilterText = None,
    pattern: FilterText = None,
    tenant: FilterText = None,
    priority: Annotated[int | None, Query(ge=1, le=5)] = None,
    batch: FilterText = None,
    error_type: FilterText = None,
    since: Annotated[AwareDatetime | None, Query(description="Failed at or after")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Failed before")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
) -> Response:
    """Dead letters that match all filters, newest first.

    The list ends where ``next_cursor`` is null.
    """
    chosen = _filter(
        agent=agent,
        pattern=pattern,
        tenant=caller.narrowed(tenant),
        priority=priority,
        batch=batch,
        error_type=error_type,
        since=since,
        until=until,
    )
    return document(await services.dead_letters.page(chosen, limit, cursor))


def _filter(**fields: str | int | datetime | None) -> DeadLetterFilter:
    try:
        return DeadLetterFilter.model_validate(
            {name: value for name, value in fields.items() if value is not None}
        )
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_input=False, include_context=False)
        ) from None


# The routes with fixed words come before those with a task id.
@router.post(
    "/redrive",
    status_code=HTTPStatus.ACCEPTED,
    response_model=BulkStatus,
    summary="Redrive many dead letters",
    responses=examples.BULK_RESPONSES,
    openapi_extra=examples.BULK,
)
async def redrive_many(request: Request, services: ServicesDependency) -> Response:
    """Run every task again that the filter selects, ``rate`` a second; durable.

    With ``dry_run`` they are only counted. Tasks that fail again meanwhile are not run twice.
    """
    return await _many(BulkAction.REDRIVE, request, services)


@router.post(
    "/discard",
    status_code=HTTPStatus.ACCEPTED,
    response_model=BulkStatus,
    summary="Discard many dead letters",
    responses=examples.BULK_RESPONSES,
    openapi_extra=examples.BULK,
)
async def discard_many(request: Request, services: ServicesDependency) -> Response:
    """Give every task up that the filter selects, as POST /dead-letters/redrive runs them."""
    return await _many(BulkAction.DISCARD, request, services)


async def _many(action: BulkAction, request: Request, services: Services) -> Response:
    wanted = validated(BulkRequest, await object_or_nothing(request))
    return await carry_out(services, caller_of(request), action, wanted)


async def carry_out(
    services: Services, caller: Caller, action: BulkAction, wanted: BulkRequest
) -> Response:
    """Do it to every dead letter that is meant and theirs, or count them."""
    whose = caller.narrowed(wanted.filter.tenant)
    meant = wanted.filter.model_copy(update={"tenant": whose})
    matched = await services.dead_letters.count(meant)
    if wanted.dry_run:
        return document(BulkMatch(action=action, matched=matched))
    redrive_id = str(uuid.uuid4())
    order = BulkOrder(
        action=action,
        filter=meant,
        rate=wanted.rate or services.settings.dead_letters.redrive_rate,
        reason=wanted.reason,
        by=by(caller, wanted.by, WHO),
        matched=matched,
    )
    status = await services.redrives.start(redrive_id, order)
    log.info("redrive_started", redrive_id=redrive_id, action=action, matched=matched)
    headers = {"Location": f"/dead-letters/redrives/{redrive_id}"}
    return document(status, HTTPStatus.ACCEPTED, headers)


@router.get(
    "/redrives/{redrive_id}",
    response_model=BulkStatus,
    summary="Follow the redrive of many",
    responses=examples.REDRIVE_RESPONSES,
)
async def redrive_status(
    redrive_id: RedriveId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """How far it has come; the numbers of a running one are some seconds old."""
    found = await services.redrives.status(redrive_id)
    return document(shown(caller, found, RedriveNotFound(redrive_id)))


@router.post(
    "/redrives/{redrive_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=BulkStatus,
    summary="Stop the redrive of many",
    responses=examples.REDRIVE_RESPONSES,
)
async def cancel_redrive(
    redrive_id: RedriveId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """Leave the rest as it is; what was done stays done."""
    missing = RedriveNotFound(redrive_id)
    await check(caller, lambda: services.redrives.status(redrive_id), missing)
    found = await services.redrives.cancel(redrive_id)
    log.info("redrive_cancel_requested", redrive_id=redrive_id)
    return document(found, HTTPStatus.ACCEPTED)


@router.get(
    "/{task_id}",
    response_model=DeadLetterDetail,
    summary="Look at a dead letter",
    responses=examples.DETAIL_RESPONSES,
)
async def dead_letter(
    task_id: TaskId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """The request as it was submitted, the attempts, and the runs before; needs no worker."""
    found = await services.dead_letters.get(task_id)
    return document(shown(caller, found, DeadLetterNotFound(task_id)))


@router.post(
    "/{task_id}/redrive",
    status_code=HTTPStatus.ACCEPTED,
    response_model=TaskStatus,
    summary="Redrive a dead letter",
    responses=examples.RESOLVE_RESPONSES,
    openapi_extra=examples.ORDER,
)
async def redrive(task_id: TaskId, request: Request, services: ServicesDependency) -> Response:
    """Run the task again under its id, by the route that the configuration gives it now."""
    order = await _order(request)
    await _check(caller_of(request), services, task_id)
    await services.dead_letters.redrive(task_id, order)
    return document(await services.tasks.status(task_id), HTTPStatus.ACCEPTED)


@router.post(
    "/{task_id}/discard",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Discarded,
    summary="Discard a dead letter",
    responses=examples.RESOLVE_RESPONSES,
    openapi_extra=examples.ORDER,
)
async def discard(task_id: TaskId, request: Request, services: ServicesDependency) -> Response:
    """Give the task up: it stays failed."""
    order = await _order(request)
    await _check(caller_of(request), services, task_id)
    resolved = await services.dead_letters.discard(task_id, order)
    answer = Discarded(task_id=task_id, resolution=resolved.resolution)
    return document(answer, HTTPStatus.ACCEPTED)


async def _order(request: Request) -> DeadLetterOrder:
    order = validated(DeadLetterOrder, await object_or_nothing(request))
    return order.model_copy(update={"by": by(caller_of(request), order.by, WHO)})


async def _check(caller: Caller, services: Services, task_id: str) -> None:
    """Raises DeadLetterNotFound where it is another tenant's."""
    missing = DeadLetterNotFound(task_id)
    await check(caller, lambda: services.dead_letters.get(task_id), missing)


async def object_or_nothing(request: Request) -> dict[str, Any]:
    """The JSON body, or an empty object where there is none."""
    announced = request.headers.get("content-length", "0")
    if announced == "0" and "transfer-encoding" not in request.headers:
        return {}
    return await json_object(request, MAX_BODY_BYTES)
