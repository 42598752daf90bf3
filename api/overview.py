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
from orchestrator.fleet.views import agent_breaker, is_healthy
from orchestrator.models import MAX_PRIORITY, MIN_PRIORITY, Health, TaskState
from orchestrator.resilience.breaker_policy import BreakerState

router = APIRouter(tags=["overview"])

_TEXT_TYPES = ("text/plain", "application/openmetrics-text")
_WORDS = {BreakerState.FORCED_OPEN: "open", BreakerState.DISABLED: "closed"}
_BREAKER_NUMBERS = {"closed": 0, "half_open": 1, "open": 2}
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
        status=_state(snapshot, services),
        timestamp=datetime.now(UTC),
        version=__version__,
        agents_healthy=sum(map(is_healthy, services.fleet.agents.values())),
        agents_total=len(services.fleet.agents),
        active_tasks=snapshot.active,
        queue_size=snapshot.waiting,
        queues={
            agent: {f"priority_{level}": queue.backlog[level] for level in sorted(queue.backlog)}
            for agent, queue in snapshot.queues.items()
            if queue.backlog
        },
    )
    code = HTTPStatus.OK if snapshot.reachable else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(answer.model_dump_json(), code, media_type="application/json")


def _state(snapshot: Snapshot, services: Services) -> str:
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
        "agents_status": _breakers(services),
        "queue_sizes": {f"priority_{level}": backlog[level] for level in _PRIORITIES},
        "agent_queue_sizes": {
            agent: {f"priority_{level}": queue.backlog.get(level, 0) for level in _PRIORITIES}
            for agent, queue in snapshot.queues.items()
        },
    }
    return Response(to_json(body), media_type="application/json")


def _breakers(services: Services) -> dict[str, str]:
    """Of each agent as one word: what an operator holds open or closed is that."""
    now = datetime.now(UTC)
    states = {name: agent_breaker(each, now) for name, each in services.fleet.agents.items()}
    return {name: _WORDS.get(state, state) for name, state in states.items()}


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
        yield GaugeMetricFamily(
            "orchestrator_dead_letters",
            "Tasks that failed for good and may be run again",
            snapshot.dead_letters,
        )
        health = GaugeMetricFamily(
            "orchestrator_agent_health", "1 if the agent answers its health check", labels=["agent"]
        )
        breakers = GaugeMetricFamily(
            "orchestrator_circuit_breaker_state",
            "0 if the agent's breaker is closed, 1 half-open, 2 open",
            labels=["agent"],
        )
        for agent, record in self._services.fleet.agents.items():
            health.add_metric([agent], float(is_healthy(record)))
        for agent, state in _breakers(self._services).items():
            breakers.add_metric([agent], _BREAKER_NUMBERS[state])
        yield health
        yield breakers
        queues = GaugeMetricFamily(
            "orchestrator_queue_size", "Calls that wait, by priority", labels=["priority"]
        )
        for level in _PRIORITIES:
            queues.add_metric([str(level)], snapshot.backlog[level])
        yield queues
        by_agent = GaugeMetricFamily(
            "orchestrator_agent_queue_size",
            "Calls that wait, by agent and priority",
            labels=["agent", "priority"],
        )
        for agent, queue in snapshot.queues.items():
            for level in _PRIORITIES:
                by_agent.add_metric([agent, str(level)], queue.backlog.get(level, 0))
        yield by_agent
