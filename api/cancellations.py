"""Cancel many tasks: those that a filter selects, by one order to the engine."""

import uuid
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api import cancellation_examples as examples
from api.callers import CallerDependency, by, caller_of, check, shown
from api.dead_letters import WHO, object_or_nothing
from api.dependencies import ServicesDependency
from api.requests import POSSIBLE, validated
from api.tasks import document
from orchestrator.cancellations import (
    CancellationMatch,
    CancellationRequest,
    CancellationStatus,
)
from orchestrator.errors import CancellationNotFound
from orchestrator.telemetry.logging import get_logger

router = APIRouter(prefix="/tasks", tags=["tasks"])
log = get_logger(__name__)

OrderId = Annotated[
    str,
    Path(min_length=1, max_length=100, description="As POST /tasks/cancel gave it"),
    POSSIBLE,
]


@router.post(
    "/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=CancellationStatus,
    summary="Cancel many tasks",
    responses=examples.CANCEL_RESPONSES,
    openapi_extra=examples.CANCEL,
)
async def cancel_many(request: Request, services: ServicesDependency) -> Response:
    """Ask every open task to end that the filter selects: the engine does it, some 50 a second.

    With ``dry_run`` they are only counted. Items of a batch that wait or run inside the batch are
    no tasks of their own yet: POST /batches/{batch_id}/cancel cancels them.
    """
    wanted = validated(CancellationRequest, await object_or_nothing(request))
    caller = caller_of(request)
    whose = caller.narrowed(wanted.filter.tenant)
    meant = wanted.filter.model_copy(update={"tenant": whose})
    matched = await services.cancellations.count(meant)
    if wanted.dry_run:
        return document(CancellationMatch(matched=matched))
    order_id = str(uuid.uuid4())
    status = await services.cancellations.start(
        order_id, meant, wanted.reason, by(caller, wanted.by, WHO), matched
    )
    log.info("tasks_cancel_requested", order_id=order_id, matched=matched)
    headers = {"Location": f"/tasks/cancellations/{order_id}"}
    return document(status, HTTPStatus.ACCEPTED, headers)


@router.get(
    "/cancellations/{order_id}",
    response_model=CancellationStatus,
    summary="Follow the cancelling of many",
    responses=examples.STATUS_RESPONSES,
)
async def cancellation(
    order_id: OrderId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """How far it has come; ``done`` are those that were asked to end, which they do soon after."""
    found = await services.cancellations.status(order_id)
    return document(shown(caller, found, CancellationNotFound(order_id)))


@router.post(
    "/cancellations/{order_id}/stop",
    status_code=HTTPStatus.ACCEPTED,
    response_model=CancellationStatus,
    summary="Stop the cancelling of many",
    responses=examples.STOP_RESPONSES,
)
async def stop_cancellation(
    order_id: OrderId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """Leave the rest as it is; tasks that were asked to end do so."""
    missing = CancellationNotFound(order_id)
    await check(caller, lambda: services.cancellations.status(order_id), missing)
    found = await services.cancellations.stop(order_id)
    log.info("tasks_cancel_stopped", order_id=order_id, state=found.state)
    return document(found, HTTPStatus.ACCEPTED)
