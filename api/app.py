"""The application: its routers, its errors, and what lives as long as it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import REGISTRY

from api import (
    agents,
    aggregates,
    asyncapi,
    batches,
    callbacks,
    cancellations,
    completions,
    dashboard,
    dead_letters,
    errors,
    events,
    openapi,
    overview,
    sessions,
    tasks,
    traffic,
)
from api.collector import OverviewCollector
from api.dependencies import Services
from orchestrator import __version__

DESCRIPTION = """\
Submit tasks for HTTP agents: each is routed, called through failures and restarts, and answered
for.

Errors are `application/problem+json` (RFC 9457) with the fields `detail` and `status_code`.
"""


def create_app(services: Services) -> FastAPI:
    """The application over its services, which whoever opened them closes."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        collector = OverviewCollector(services, asyncio.get_running_loop())
        REGISTRY.register(collector)
        try:
            yield
        finally:
            REGISTRY.unregister(collector)

    app = FastAPI(
        title="Orchestration Agent",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
    )
    app.state.services = services
    errors.install(app)
    app.include_router(tasks.router)
    app.include_router(events.router)
    app.include_router(aggregates.router)
    app.include_router(batches.router)
    app.include_router(cancellations.router)
    app.include_router(completions.router)
    app.include_router(dead_letters.router)
    app.include_router(callbacks.router)
    app.include_router(overview.router)
    app.include_router(agents.router)
    app.include_router(dashboard.router)
    app.include_router(traffic.router)
    app.include_router(asyncapi.router)
    app.include_router(sessions.router)
    openapi.install(app)
    return app
