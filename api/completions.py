"""Agents that answer later post here what came of their calls."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from api import completion_examples as examples
from api.completion_bodies import Kind, LateReport
from api.dependencies import ServicesDependency
from api.requests import json_object, validated
from orchestrator.completions import Ticket
from orchestrator.engine.completions import Completions
from orchestrator.errors import CompletionExpired, PayloadTooLarge
from orchestrator.late_models import LateAnswer, LateFailure
from orchestrator.models import Model
from orchestrator.telemetry.logging import get_logger

router = APIRouter(tags=["late answers"])
log = get_logger(__name__)

MAX_PROGRESS_BYTES = 10_000
"""A status is read often, and the engine keeps what it shows with each task."""
_BODY_BYTES = 100
"""What stands around a result in the body."""


class Received(Model):
    """The answer: what was taken, and for which task."""

    task_id: str
    received: Kind


@router.post(
    "/completions/{token}",
    summary="Answer a call later",
    responses=examples.RESPONSES,
    openapi_extra=examples.REPORT,
)
async def complete(
    token: Annotated[str, Path(description="The end of the call's X-Completion-URL")],
    request: Request,
    services: ServicesDependency,
) -> Received:
    """What came of a call that was answered with 202; the URL itself is the permission.

    A result or an error ends the wait, once; progress may be posted any number of times before.
    Answered when the engine has it: post again after 503 or a broken connection; after any 4xx do
    not, the task does not wait for it any more.
    """
    if services.completion_urls is None:
        raise HTTPException(
            HTTPStatus.NOT_FOUND, "Late answers are off: completions.secret is not set"
        )
    ticket = services.completion_urls.read(token)
    limit = services.settings.limits.max_result_bytes
    report = validated(LateReport, await json_object(request, limit + _BODY_BYTES))
    if ticket.expires < datetime.now(UTC):
        raise CompletionExpired(ticket.task_id)
    await _deliver(services.completions, ticket, report)
    log.info("answer_received", task_id=ticket.task_id, kind=report.kind)
    return Received(task_id=ticket.task_id, received=report.kind)


async def _deliver(completions: Completions, ticket: Ticket, report: LateReport) -> None:
    if report.kind == "progress":
        size = len(to_json(report.progress))
        if size > MAX_PROGRESS_BYTES:
            raise PayloadTooLarge(size, MAX_PROGRESS_BYTES)
        await completions.progress(ticket, report.progress)
    elif report.kind == "result":
        await completions.complete(ticket, LateAnswer(result=report.result))
    else:
        failure = LateFailure(retryable=report.retryable, retry_after=report.retry_after)
        agent, _ = ticket.attempt
        await completions.fail(ticket, f"{agent} answered later: {report.words}", failure)
