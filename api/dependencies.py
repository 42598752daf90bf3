"""What the routers work with; made once, by the application's lifespan."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.agent_health import AgentHealth
from orchestrator.config import Settings
from orchestrator.engine.overview import Overview
from orchestrator.engine.tasks import Tasks
from orchestrator.routing import Routes


@dataclass(frozen=True)
class Services:
    """The parts behind the API."""

    settings: Settings
    routes: Routes
    tasks: Tasks
    overview: Overview
    agent_health: AgentHealth
    stopping: asyncio.Event
    """Set when the process is told to stop: who waits is answered at once."""
    workflows: asyncio.Task[None]
    """The workflow worker beside the API; it ends early only when the engine refuses it."""


async def services(request: Request) -> Services:
    """The services of the running application; async, or each request would pay for a thread."""
    found: Services = request.app.state.services
    return found


ServicesDependency = Annotated[Services, Depends(services)]
