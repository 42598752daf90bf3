"""What the routers work with; made once, by the application's lifespan."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.admission import Admission
from orchestrator.coalescing import Coalescer
from orchestrator.completions import CompletionUrls
from orchestrator.config import Settings
from orchestrator.engine.aggregates import Aggregates
from orchestrator.engine.callbacks import Callbacks
from orchestrator.engine.cancellations import Cancellations
from orchestrator.engine.completions import Completions
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.fleet_view import FleetView
from orchestrator.engine.live_events import LiveEvents
from orchestrator.engine.overview import Overview
from orchestrator.engine.priorities import Priorities
from orchestrator.engine.readiness import Readiness
from orchestrator.engine.redrives import Redrives
from orchestrator.engine.task_counts import TaskCounts
from orchestrator.engine.tasks import Tasks
from orchestrator.engine.traffic import Traffic
from orchestrator.live_settings import Prepare
from orchestrator.receivers import SubmissionGuard
from orchestrator.routing import Routes
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.quotas import Quotas
from orchestrator.security.sessions import Sessions
from orchestrator.telemetry.exposition import Exposition


@dataclass(frozen=True)
class Process:
    """What the routers know of the process that they are in."""

    exposition: Exposition | None
    """What Prometheus reads; None where metrics are not wanted."""
    stopping: asyncio.Event
    """Set when the process is told to stop: who waits is answered at once."""
    workflows: asyncio.Task[None]
    """The workflow worker beside the API; it ends early only when the engine refuses it."""


@dataclass
class Services:
    """The parts behind the API; of a changed configuration some are replaced, all at once."""

    settings: Settings
    config_version: str
    routes: Routes
    tasks: Tasks
    coalescer: Coalescer
    overview: Overview
    counts: TaskCounts
    admission: Admission
    fleet: FleetView
    dead_letters: DeadLetters
    redrives: Redrives
    cancellations: Cancellations
    aggregates: Aggregates
    priorities: Priorities
    callbacks: Callbacks
    guard: SubmissionGuard
    live: LiveEvents
    completions: Completions
    completion_urls: CompletionUrls | None
    """None where agents cannot answer later."""
    traffic: Traffic
    authenticator: Authenticator
    sessions: Sessions
    quotas: Quotas
    prepare: Prepare
    """Builds what a changed configuration replaces."""
    readiness: Readiness
    process: Process


async def services(request: Request) -> Services:
    """The services of the running application; async, or each request would pay for a thread."""
    found: Services = request.app.state.services
    return found


ServicesDependency = Annotated[Services, Depends(services)]
