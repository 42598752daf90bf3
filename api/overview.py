"""The state of the whole: GET /health and GET /metrics."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from pydantic_core import to_json
from starlette.responses import Response

from api import examples
from api.dependencies import Services, ServicesDependency
from orchestrator import __version__
from orchestrator.engine.overview import Snapshot
from orchestrator.models import MAX_PRIORITY, MIN_PRIORITY, Health, TaskState

router = APIRouter(tags=["overview"])

_TEXT_TYPES = ("text/plain", "application/openmetrics-text")
_PRIORITIES = range(MAX_PRIORITY, MIN_PRIORITY - 1, -1)


@router.get(
    "/health", response_model=Health, summary="Is it well?", responses=examples.HEALTH_RESPONSES
)
async def health(services: ServicesDependency) -> Response:
    """``healthy``; ``degraded`` when an agent's calls have no worker; 503 without the engine.

    The numbers are at most some seconds old; the answer costs no call to the engine.
    """
    snapshot = await services.overview.get()
    answer = Health(
        status=_state(snapshot),
        timestamp=datetime.now(UTC),
        version=__version__,
        agents_healthy=services.agent_health.healthy_count,
        agents_total=len(services.settings.agents),
        active_tasks=snapshot.active,
        queue_size=snapshot.backlog.total(),
    )
    code = HTTPStatus.OK if snapshot.reachable else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(answer.model_dump_json(), code, media_type="application/json")


def _state(snapshot: Snapshot) -> str:
    if not snapshot.reachable:
        return "unhealthy"
    return "healthy" if snapshot.has_workers else "degraded"


@router.get(
    "/metrics",
    summary="Numbers",
    response_model=dict[str, Any],
    responses=examples.METRICS_RESPONSES,
)
async def metrics(request: Request, services: ServicesDependency) -> Response:
    """JSON, or the Prometheus text where the Accept header asks for text/plain or OpenMetrics."""
    snapshot = await services.overview.get()
    accept = request.headers.get("accept", "")
    if any(kind in accept for kind in _TEXT_TYPES):
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
    counts, backlog = snapshot.counts, snapshot.backlog
    body = {
        "total_tasks": sum(counts.values()),
        "active_tasks": snapshot.active,
        "completed_tasks": counts[TaskState.COMPLETED],
        "failed_tasks": counts[TaskState.FAILED],
        "cancelled_tasks": counts[TaskState.CANCELLED],
        "agents_status": dict.fromkeys(services.settings.agents, "closed"),
        "queue_sizes": {f"priority_{level}": backlog[level] for level in _PRIORITIES},
    }
    return Response(to_json(body), media_type="application/json")


class OverviewCollector(Collector):
    """The gauges that are read from the last overview when Prometheus asks."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        snapshot = self._services.overview.last
        yield GaugeMetricFamily(
            "orchestrator_active_tasks", "Tasks that have not ended", snapshot.active
        )
        health = GaugeMetricFamily(
            "orchestrator_agent_health", "1 if the agent answers its health check", labels=["agent"]
        )
        for agent in self._services.settings.agents:
            health.add_metric([agent], float(self._services.agent_health.healthy(agent)))
        yield health
        queues = GaugeMetricFamily(
            "orchestrator_queue_size", "Calls that wait, by priority", labels=["priority"]
        )
        for level in _PRIORITIES:
            queues.add_metric([str(level)], snapshot.backlog[level])
        yield queues
