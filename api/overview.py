"""The state of the whole: GET /health and GET /metrics."""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from api import examples
from api.collector import COUNT_SECONDS, FINAL_STATES, PRIORITIES, breakers
from api.dependencies import Services, ServicesDependency
from api.errors import problem
from orchestrator import __version__
from orchestrator.engine.overview import Snapshot
from orchestrator.engine.task_counts import Counts
from orchestrator.fleet.views import is_healthy
from orchestrator.models import TaskState
from orchestrator.statuses import Health, Probe
from orchestrator.telemetry.exposition import CONTENT_TYPE

router = APIRouter(tags=["overview"])

HEALTH_SECONDS = 0.5
"""How long GET /health waits for the engine to count; then it tells what was counted before."""
_TEXT_TYPES = ("text/plain", "application/openmetrics-text")
_JSON = "application/json"
_OFF = "Prometheus metrics are switched off here: monitoring.enable_metrics is false"


@router.get(
    "/health", response_model=Health, summary="Is it well?", responses=examples.HEALTH_RESPONSES
)
async def health(services: ServicesDependency) -> Response:
    """``healthy``; ``degraded`` when an agent's calls have no worker; 503 without the engine.

    Also 503, ``stopping``, once this process was told to stop: other processes go on.

    The numbers are some seconds old, or older while the engine takes long to tell them.
    """
    snapshot = await services.overview.get()
    counts = await _counts(snapshot, services, HEALTH_SECONDS)
    answer = Health(
        status=_state(snapshot, services),
        timestamp=datetime.now(UTC),
        version=__version__,
        config_version=services.config_version,
        agents_healthy=sum(map(is_healthy, services.fleet.agents.values())),
        agents_total=len(services.fleet.agents),
        active_tasks=counts.active(snapshot.batches),
        queue_size=snapshot.waiting,
        queues={
            agent: {f"priority_{level}": queue.backlog[level] for level in sorted(queue.backlog)}
            for agent, queue in snapshot.queues.items()
            if queue.backlog
        },
    )
    well = snapshot.reachable and not services.process.stopping.is_set()
    code = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(answer.model_dump_json(), code, media_type=_JSON)


@router.get("/live", response_model=Probe, summary="Does this process live?")
async def live() -> Response:
    """200 as long as this process answers, whatever becomes of the engine: for liveness probes."""
    return Response(Probe(status="alive").model_dump_json(exclude_none=True), media_type=_JSON)


@router.get(
    "/ready",
    response_model=Probe,
    summary="May this process be given requests?",
    responses=examples.READY_RESPONSES,
)
async def ready(services: ServicesDependency) -> Response:
    """503 while the engine does not answer and once the process stops: for readiness probes.

    The engine is asked at most once a second.
    """
    problem = await services.readiness.problem()
    answer = Probe(status="not_ready" if problem else "ready", reason=problem)
    code = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
    return Response(answer.model_dump_json(exclude_none=True), code, media_type=_JSON)


async def _counts(snapshot: Snapshot, services: Services, patience: float) -> Counts:
    """The counts of tasks; nobody waits for an engine that is known not to answer."""
    if not snapshot.reachable:
        return services.counts.last
    return await services.counts.get(patience)


def _state(snapshot: Snapshot, services: Services) -> str:
    if services.process.stopping.is_set():
        return "stopping"
    if not snapshot.reachable:
        return "unhealthy"
    return "healthy" if snapshot.has_workers and services.fleet.reachable else "degraded"


@router.get(
    "/metrics",
    summary="Numbers",
    response_model=dict[str, Any],
    responses=examples.METRICS_RESPONSES,
)
async def metrics(request: Request, services: ServicesDependency) -> Response:
    """JSON, or the Prometheus text where the Accept header asks for text/plain or OpenMetrics.

    They are of all tenants together: with keys, it takes one for all tenants.
    """
    snapshot = await services.overview.get()
    accept = request.headers.get("accept", "")
    if any(kind in accept for kind in _TEXT_TYPES):
        return await _prometheus(snapshot, services)
    counts, backlog = await _counts(snapshot, services, COUNT_SECONDS), snapshot.backlog
    active = counts.active(snapshot.batches)
    body = {
        "total_tasks": active + sum(counts.tasks[state] for state in FINAL_STATES),
        "active_tasks": active,
        "completed_tasks": counts.tasks[TaskState.COMPLETED],
        "failed_tasks": counts.tasks[TaskState.FAILED],
        "cancelled_tasks": counts.tasks[TaskState.CANCELLED],
        "dead_letters": counts.dead_letters,
        "agents_status": breakers(services.fleet),
        "queue_sizes": {f"priority_{level}": backlog[level] for level in PRIORITIES},
        "agent_queue_sizes": {
            agent: {f"priority_{level}": queue.backlog.get(level, 0) for level in PRIORITIES}
            for agent, queue in snapshot.queues.items()
        },
    }
    return Response(to_json(body), media_type=_JSON)


async def _prometheus(snapshot: Snapshot, services: Services) -> Response:
    if services.process.exposition is None:
        return problem(HTTPStatus.NOT_FOUND, _OFF)
    # The collector finds them made, and its thread need not wait.
    await _counts(snapshot, services, COUNT_SECONDS)
    # It asks the engine's client too, and must not hold up the requests beside it.
    text = await asyncio.to_thread(services.process.exposition.text)
    return Response(text, media_type=CONTENT_TYPE)
