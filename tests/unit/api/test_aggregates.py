"""POST /aggregate, where the engine goes away once it has taken the aggregate."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from api import aggregates, errors
from api.dependencies import Process
from api.security import Gate
from orchestrator.aggregate_status import AggregateStatus
from orchestrator.aggregates import Aggregation
from orchestrator.config import Agent, Instance, Rule, Settings
from orchestrator.engine.aggregates import SubmittedAggregate
from orchestrator.errors import EngineUnavailable
from orchestrator.limits import RateLimits
from orchestrator.models import Plan
from orchestrator.receivers import SubmissionGuard
from orchestrator.routing import Routes
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.quotas import Quotas, UsageCounts
from orchestrator.security.sessions import Sessions

FIRST = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
SETTINGS = Settings(
    agents={"reader": Agent(instances=(Instance(url="http://reader"),))},
    routing_rules=(Rule(pattern="read", target_agent="reader", endpoint="/read"),),
)
BODY = {"task_ids": ["a", "b", "a"], "tasks": [{"pattern": "read", "payload": {}}]}


class Willing:
    """Admits everything."""

    limits = RateLimits(SETTINGS)

    async def admitted_batch(self, plans: Sequence[Plan]) -> Sequence[Plan]:
        """The same."""
        return plans


@dataclass
class Fading:
    """Takes an aggregate, and cannot be asked for it."""

    created: bool
    taken: list[str] = field(default_factory=list)

    async def submit(self, aggregate_id: str, _: Aggregation, *__: Any) -> SubmittedAggregate:
        """Taken."""
        self.taken.append(aggregate_id)
        return SubmittedAggregate(FIRST, self.created)

    async def status(self, aggregate_id: str, wait: float) -> AggregateStatus:
        """Not told."""
        raise EngineUnavailable(f"The engine did not tell of {aggregate_id} in {wait} s")


@dataclass
class Parts:
    """The parts behind the API that are needed here."""

    aggregates: Fading
    settings: Settings = SETTINGS
    routes: Routes = field(default_factory=lambda: Routes(SETTINGS))
    admission: Willing = field(default_factory=Willing)
    guard: SubmissionGuard = field(default_factory=lambda: SubmissionGuard.of(SETTINGS))
    quotas: Quotas = field(default_factory=lambda: Quotas({}, cast("UsageCounts", None)))
    process: Process = field(
        default_factory=lambda: Process(None, asyncio.Event(), cast("asyncio.Task[None]", None))
    )


@pytest.mark.parametrize(("created", "replayed"), [(True, None), (False, "true")])
async def test_what_was_taken_is_accepted(created: bool, replayed: str | None) -> None:  # noqa: FBT001
    """With its id and what is known of it, so that nobody asks for it twice."""
    app, fading = FastAPI(), Fading(created)
    errors.install(app)
    app.include_router(aggregates.router)
    app.state.services = Parts(fading)
    authenticator = Authenticator(settings := Settings())
    gate = Gate(app, authenticator, Sessions(settings.security, authenticator))
    transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.post("/aggregate", json=BODY, headers={"Idempotency-Key": "k"})

    status, [aggregate_id] = AggregateStatus.model_validate(answer.json()), fading.taken
    assert 202 == answer.status_code
    assert (f"/aggregate/{aggregate_id}", replayed) == (
        answer.headers["location"],
        answer.headers.get("idempotency-replayed"),
    )
    assert (aggregate_id, "running", 3, 3) == (
        status.aggregate_id,
        status.status,
        status.total_tasks,
        status.pending,
    )
    assert FIRST == status.created_at == status.updated_at
