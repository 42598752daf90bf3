"""What receivers are told of tasks' ends: look at callbacks, deliver them again, give them up."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from api import callback_examples as examples
from api.callers import CallerDependency, by, caller_of, check, shown
from api.dead_letters import WHO, object_or_nothing
from api.dependencies import Services, ServicesDependency
from api.requests import validated
from api.tasks import EARLIEST, LATEST, MAX_ID, MAX_PAGE, FilterText, document
from orchestrator.callbacks import (
    CallbackDetail,
    CallbackFilter,
    CallbackOrder,
    CallbackPage,
    CallbackState,
)
from orchestrator.errors import CallbackNotFound
from orchestrator.security.callers import Caller
from orchestrator.telemetry.logging import get_logger

router = APIRouter(prefix="/callbacks", tags=["callbacks"])
log = get_logger(__name__)

CallbackId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_ID,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="The task's id; after a redrive with ~2 behind it, and so on",
    ),
]


@router.get(
    "",
    response_model=CallbackPage,
    summary="List callbacks",
    responses=examples.LIST_RESPONSES,
)
async def callbacks(
    caller: CallerDependency,
    services: ServicesDependency,
    status: CallbackState | None = None,
    task_id: FilterText = None,
    agent: FilterText = None,
    pattern: FilterText = None,
    tenant: FilterText = None,
    batch: FilterText = None,
    since: Annotated[
        AwareDatetime | None, Query(description="Begun at or after", gt=EARLIEST, lt=LATEST)
    ] = None,
    until: Annotated[
        AwareDatetime | None, Query(description="Begun before", gt=EARLIEST, lt=LATEST)
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
) -> Response:
    """Callbacks that match all filters, newest first.

    The list ends where ``next_cursor`` is null. Those that are pending or dead are there until they
    end, the others as long as the engine keeps what has ended.
    """
    chosen = CallbackFilter(
        status=status,
        task_id=task_id,
        agent=agent,
        pattern=pattern,
        tenant=caller.narrowed(tenant),
        batch=batch,
        since=since,
        until=until,
    )
    return document(await services.callbacks.page(chosen, limit, cursor))


@router.get(
    "/{callback_id}",
    response_model=CallbackDetail,
    summary="Look at a callback",
    responses=examples.DETAIL_RESPONSES,
)
async def callback(
    callback_id: CallbackId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """How far it has come, and when it is tried next; needs no worker."""
    found = await services.callbacks.get(callback_id)
    return document(shown(caller, found, CallbackNotFound(callback_id)))


@router.post(
    "/{callback_id}/redeliver",
    status_code=HTTPStatus.ACCEPTED,
    response_model=CallbackDetail,
    summary="Deliver a callback again",
    responses=examples.ORDER_RESPONSES,
    openapi_extra=examples.ORDER,
)
async def redeliver(
    callback_id: CallbackId, request: Request, services: ServicesDependency
) -> Response:
    """Deliver it now, with the same webhook-id and body, and by the whole schedule if that fails.

    Be it dead, pausing between attempts, given up, or delivered before.
    """
    order = await _order(request)
    await _check(caller_of(request), services, callback_id)
    found = await services.callbacks.redeliver(callback_id, order)
    log.info("callback_redeliver_requested", callback_id=callback_id)
    return document(found, HTTPStatus.ACCEPTED)


@router.post(
    "/{callback_id}/discard",
    status_code=HTTPStatus.ACCEPTED,
    response_model=CallbackDetail,
    summary="Give a callback up",
    responses=examples.ORDER_RESPONSES,
    openapi_extra=examples.ORDER,
)
async def discard(
    callback_id: CallbackId, request: Request, services: ServicesDependency
) -> Response:
    """Send nothing more. One that has ended stays as it is."""
    order = await _order(request)
    await _check(caller_of(request), services, callback_id)
    found = await services.callbacks.discard(callback_id, order)
    log.info("callback_discard_requested", callback_id=callback_id)
    return document(found, HTTPStatus.ACCEPTED)


async def _order(request: Request) -> CallbackOrder:
    order = validated(CallbackOrder, await object_or_nothing(request))
    return order.model_copy(update={"by": by(caller_of(request), order.by, WHO)})


async def _check(caller: Caller, services: Services, callback_id: str) -> None:
    """Raises CallbackNotFound where it is another tenant's."""
    missing = CallbackNotFound(callback_id)
    await check(caller, lambda: services.callbacks.get(callback_id), missing)
