"""Submit a task, follow it, list tasks, cancel one."""

import contextlib
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from api import examples, rate_limits
from api.callers import CallerDependency, caller_of, check, shown
from api.dependencies import Services, ServicesDependency
from api.errors import retry_seconds, status_of
from api.requests import (
    POSSIBLE,
    idempotency_key,
    json_object,
    traceparent,
    validated,
    wait_seconds,
)
from api.submission import Wish, planned, submit
from api.waiting import watched
from orchestrator.engine.listing import TaskFilter
from orchestrator.engine.tasks import Submitted
from orchestrator.errors import (
    AgentUnavailable,
    EngineUnavailable,
    QueueFull,
    RateLimited,
    TaskNotFound,
)
from orchestrator.models import Model, Plan, PriorityChange, TaskRequest, TaskState
from orchestrator.statuses import DryRun, TaskPage, TaskStatus, Verdict
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger

router = APIRouter(tags=["tasks"])
log = get_logger(__name__)

MAX_PAGE = 500
MAX_ID = 500
"""Characters of a task's id."""
# What the engine can compare times with, whatever their zone.
EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

FilterText = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]

TaskId = Annotated[
    str,
    Path(min_length=1, max_length=MAX_ID, description="As POST /orchestrate gave it"),
    POSSIBLE,
]


@router.post(
    "/orchestrate",
    status_code=HTTPStatus.ACCEPTED,
    response_model=TaskStatus,
    summary="Submit a task",
    responses=examples.SUBMIT_RESPONSES,
    openapi_extra=examples.SUBMIT,
)
async def orchestrate(
    request: Request,
    services: ServicesDependency,
    dry_run: Annotated[  # noqa: FBT002 - a query parameter has a name
        bool, Query(description="Only say how the task would be routed, and what would be answered")
    ] = False,
) -> Response:
    """Route the task and start it durably; answered when the engine has it.

    With ``Prefer: wait=N`` the answer is the final status (200) if the task ends within N seconds.
    With ``Idempotency-Key`` a repeated request gets the first one's answer.
    """
    if dry_run:
        return document(await _rehearse(request, services))
    began = time.perf_counter()
    try:
        task, submitted, limits = await _submit(request, services)
    except Exception as error:
        agent = getattr(error, "agent", None)
        metrics.submission(agent, status_of(error), time.perf_counter() - began)
        raise
    status = submitted.status
    metrics.submission(status.agent, HTTPStatus.ACCEPTED, time.perf_counter() - began)
    log.info(
        "task_accepted" if submitted.created else "task_replayed",
        task_id=status.task_id,
        agent=status.agent,
        pattern=task.pattern,
    )
    return await _answer(request, services, submitted, limits)


async def _planned(request: Request, services: Services) -> tuple[TaskRequest, Plan, str | None]:
    """The request, the route that the configuration gives it, and its idempotency key."""
    body = await json_object(request, services.settings.limits.max_payload_bytes)
    asked = caller_of(request).owned(validated(TaskRequest, body))
    return asked, await planned(services, asked), idempotency_key(request)


async def _rehearse(request: Request, services: Services) -> DryRun:
    """What a submission would lead to now; nothing is started, no token taken."""
    _, plan, _ = await _planned(request, services)
    try:
        plan = await services.admission.preview(plan)
    except (AgentUnavailable, RateLimited, QueueFull) as error:
        wait = int(rate_limits.retry_after(retry_seconds(error)))
        verdict = Verdict(
            admitted=False, status_code=status_of(error), detail=str(error), retry_after=wait
        )
        return DryRun(plan=plan, admission=verdict)
    return DryRun(plan=plan, admission=Verdict(admitted=True, status_code=HTTPStatus.ACCEPTED))


async def _submit(
    request: Request, services: Services
) -> tuple[TaskRequest, Submitted, dict[str, str]]:
    """Start the task, or find it; with the headers that tell of the limits it counts towards."""
    asked, plan, key = await _planned(request, services)
    wish = Wish(asked, plan, key, traceparent(request))
    return asked, *await submit(services, wish)


async def _answer(
    request: Request, services: Services, submitted: Submitted, limits: dict[str, str]
) -> Response:
    task_id = submitted.status.task_id
    headers = {"Location": f"/status/{task_id}", **limits}
    if not submitted.created:
        headers["Idempotency-Replayed"] = "true"
    status = submitted.status
    if wait := wait_seconds(request):
        headers["Preference-Applied"] = f"wait={wait}"
        # The task is durable: failing to watch it must not read as failing to take it.
        with contextlib.suppress(EngineUnavailable):
            status = await _watched(services, task_id, wait)
    code = HTTPStatus.OK if status.status.is_final else HTTPStatus.ACCEPTED
    return document(status, code, headers)


@router.get(
    "/status/{task_id}",
    response_model=TaskStatus,
    summary="Follow a task",
    responses=examples.STATUS_RESPONSES,
)
async def status(task_id: TaskId, request: Request, services: ServicesDependency) -> Response:
    """The task as the engine records it; needs no worker.

    With ``Prefer: wait=N`` answered as soon as the task has ended, or after N seconds.
    """
    wait, caller, missing = wait_seconds(request), caller_of(request), TaskNotFound(task_id)
    headers = {"Preference-Applied": f"wait={wait}"} if wait else None
    if wait:
        # Nobody waits for another's task, as nobody waits for one that is not there.
        await check(caller, lambda: services.tasks.status(task_id), missing)
    found = await _watched(services, task_id, wait)
    return document(shown(caller, found, missing), HTTPStatus.OK, headers)


async def _watched(services: Services, task_id: str, wait: float) -> TaskStatus:
    return await watched(services, lambda seconds: services.tasks.status(task_id, seconds), wait)


@router.get(
    "/tasks",
    response_model=TaskPage,
    summary="List tasks",
    responses=examples.LIST_RESPONSES,
)
async def tasks(
    caller: CallerDependency,
    services: ServicesDependency,
    agent: FilterText = None,
    pattern: FilterText = None,
    status: TaskState | None = None,
    tenant: FilterText = None,
    priority: Annotated[int | None, Query(ge=1, le=5)] = None,
    batch: FilterText = None,
    since: Annotated[
        AwareDatetime | None,
        Query(description="Started at or after, with a time zone", gt=EARLIEST, lt=LATEST),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
) -> Response:
    """Tasks that match all filters, newest first.

    A page may hold fewer than ``limit`` tasks; the list ends where ``next_cursor`` is null.
    """
    whose = caller.narrowed(tenant)
    chosen = TaskFilter(agent, pattern, status, whose, priority, since, batch=batch)
    return document(await services.tasks.page(chosen, limit, cursor))


@router.post(
    "/tasks/{task_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=TaskStatus,
    summary="Cancel a task",
    responses=examples.STATUS_RESPONSES,
)
async def cancel(
    task_id: TaskId, caller: CallerDependency, services: ServicesDependency
) -> Response:
    """Ask the task to end; a call in flight is cut off. A task that has ended stays as it is."""
    await check(caller, lambda: services.tasks.status(task_id), TaskNotFound(task_id))
    found = await services.tasks.cancel(task_id)
    log.info("task_cancel_requested", task_id=task_id, agent=found.agent)
    return document(found, HTTPStatus.ACCEPTED)


@router.post(
    "/tasks/{task_id}/priority",
    status_code=HTTPStatus.ACCEPTED,
    response_model=TaskStatus,
    summary="Change a task's priority",
    responses=examples.PRIORITY_RESPONSES,
    openapi_extra=examples.PRIORITY,
)
async def change_priority(
    task_id: TaskId, request: Request, services: ServicesDependency
) -> Response:
    """Move a waiting task among the more or the less urgent ones; later attempts follow.

    The engine moves it within about a second. A task that has ended is answered with 409.
    """
    body = await json_object(request, services.settings.limits.max_payload_bytes)
    wanted = validated(PriorityChange, body).priority
    missing = TaskNotFound(task_id)
    await check(caller_of(request), lambda: services.tasks.status(task_id), missing)
    found = await services.priorities.change(task_id, wanted)
    log.info("task_priority_changed", task_id=task_id, agent=found.agent, priority=wanted)
    return document(found, HTTPStatus.ACCEPTED)


def document(
    model: Model, code: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """A model as the answer, encoded once."""
    content: Any = model.model_dump_json()
    return Response(content, code, headers, media_type="application/json")
