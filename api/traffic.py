"""GET /traffic: what each agent's tasks came to in the last ten minutes."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from api.dependencies import ServicesDependency
from api.examples import problem_example
from api.tasks import document
from orchestrator.engine.traffic import BUCKET_SECONDS, BUCKETS, TrafficView

router = APIRouter(tags=["agents"])

_EXAMPLE: dict[str, Any] = {
    "as_of": "2026-01-15T10:30:05Z",
    "bucket_seconds": BUCKET_SECONDS,
    "complete": True,
    "agents": {
        "content_ingestion_agent": {
            "completed": [0] * (BUCKETS - 2) + [4, 2],
            "failed": [0] * (BUCKETS - 2) + [1, 0],
            "seconds": [None] * (BUCKETS - 2) + [0.21, 0.18],
        }
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Buckets of 10 seconds, the oldest first",
        "content": {"application/json": {"example": _EXAMPLE}},
    },
    503: problem_example(503, "Service Unavailable", "The engine did not answer in time"),
}


@router.get(
    "/traffic", response_model=TrafficView, summary="Traffic by agent", responses=_RESPONSES
)
async def traffic(services: ServicesDependency) -> Response:
    """How many tasks of each agent ended, and how long they took; at most 5 seconds old.

    Counted from the engine's record, so it is that of all processes and all tenants: with keys, it
    takes one for all tenants. Items of batches are counted in GET /batches instead.
    """
    return document(await services.traffic.get())
