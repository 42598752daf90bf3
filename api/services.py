"""The parts behind the API, opened and closed in order."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from activities.call_agent import AgentCalls
from activities.publish_events import EventPublisher
from activities.resolve_plan import PlanResolver
from api.dependencies import Services
from orchestrator.admission import Admission
from orchestrator.coalescing import Coalescer
from orchestrator.config import Settings
from orchestrator.config_changes import version_of
from orchestrator.engine.aggregates import Aggregates
from orchestrator.engine.callbacks import Callbacks
from orchestrator.engine.cancellations import Cancellations
from orchestrator.engine.completions import Completions
from orchestrator.engine.connect import connect
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.fleet import FIRST_LOOK_SECONDS, Fleet, FleetView, fleet_config
from orchestrator.engine.live_events import LiveEvents
from orchestrator.engine.overview import Overview
from orchestrator.engine.payloads import converter_of
from orchestrator.engine.priorities import Priorities
from orchestrator.engine.readiness import Readiness
from orchestrator.engine.record import Blocked
from orchestrator.engine.redrives import Redrives
from orchestrator.engine.tasks import Tasks
from orchestrator.engine.traffic import Traffic
from orchestrator.engine.usage import Usage
from orchestrator.engine.versions import make_current
from orchestrator.errors import StartupError
from orchestrator.messaging.outbox import Outbox, by_workflow
from orchestrator.messaging.publishers import publisher_of
from orchestrator.models import BlockedBy, LimitMode
from orchestrator.parts import (
    Shared,
    agent_transport,
    close_all,
    completion_urls,
    grace_of,
    in_background,
    interceptors,
    secret_headers,
)
from orchestrator.receivers import SubmissionGuard
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.resilience.pool import Pools
from orchestrator.routing import Routes
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.quotas import Quotas
from orchestrator.security.sessions import Sessions
from orchestrator.shared_limits import SharedBuckets
from orchestrator.telemetry.exposition import Exposition
from workflows.hosting import workflow_worker

if TYPE_CHECKING:
    from orchestrator.telemetry.spans import Spans


@asynccontextmanager
async def open_services(
    settings: Settings,
    stopping: asyncio.Event,
    exposition: Exposition | None,
    spans: "Spans | None" = None,
) -> AsyncIterator[Services]:
    """Connect to the engine, and host workflows on the same client.

    The worker beside the API is what makes a start eager: the engine hands a new workflow's first
    task to the process that started it, in the answer to the start call.
    """
    name = f"api@{os.getpid()}"
    authenticator = Authenticator(settings)
    client = await connect(
        settings.temporal, name, exposition, interceptors(spans), converter=converter_of(settings)
    )
    timeout = settings.temporal.rpc_timeout
    transport = agent_transport(settings, spans)
    pools, resolver = Pools.of(settings), PlanResolver(Routes(settings))
    completions, publisher = completion_urls(settings), publisher_of(settings)
    outbox = Outbox(publisher, by_workflow(client, timeout))
    headers = secret_headers(settings)
    calls = AgentCalls(pools, transport, headers, completions=completions, outbox=outbox)
    events = EventPublisher(outbox, publisher)
    worker = workflow_worker(
        client,
        calls,
        resolver,
        grace_of(settings),
        events=events,
        versioning=settings.temporal.versioning,
    )
    running = asyncio.create_task(worker.run())
    shared = SharedBuckets.of(settings)
    fleet = FleetView(Fleet(client, timeout), fleet_config(settings), name)
    parts = Shared(pools, fleet, headers, transport)
    try:
        # The overview counts tasks, and tasks ask admission what they wait for.
        tasks = Tasks(
            client,
            timeout,
            lambda agent: what_blocks(agent, pools, admission),
            # Other engines may be of a version that refuses it, and versions are other builds.
            notes_builds=settings.temporal.is_embedded and not settings.temporal.versioning.enabled,
        )
        aggregates = Aggregates(client, timeout)
        overview = Overview(client, tasks, tuple(settings.agents), timeout)
        admission = Admission(settings, pools, overview, shared)
        fleet.watch(pools)
        fleet.listen(lambda snapshot, _: admission.sync(snapshot))
        await make_current(client, settings.temporal)
        await fleet.begin(FIRST_LOOK_SECONDS)
        readiness = Readiness(client, timeout, stopping)
        if exposition is not None:
            exposition.ready(readiness.problem)
        async with in_background(overview.run(), fleet.run()):
            services = Services(
                settings=settings,
                config_version=version_of(settings),
                routes=resolver.routes,
                tasks=tasks,
                coalescer=Coalescer(settings.coalescing, tasks.batches.start_coalesced, timeout),
                overview=overview,
                admission=admission,
                fleet=fleet,
                dead_letters=DeadLetters(client, timeout),
                redrives=Redrives(client, timeout),
                cancellations=Cancellations(client, timeout),
                aggregates=aggregates,
                priorities=Priorities(client, tasks, timeout),
                exposition=exposition,
                callbacks=Callbacks(client, timeout),
                guard=SubmissionGuard.of(settings),
                live=LiveEvents(client, tasks, aggregates, timeout),
                completions=Completions(client, timeout),
                completion_urls=completions,
                traffic=Traffic(client, timeout),
                authenticator=authenticator,
                quotas=Quotas(settings.security.quotas, Usage(client, timeout), shared),
                sessions=Sessions(settings.security, authenticator),
                prepare=lambda settings: prepared(settings, services, parts, resolver),
                readiness=readiness,
                stopping=stopping,
                workflows=running,
            )
            yield services
    finally:
        await worker.shutdown()
        await asyncio.gather(running, return_exceptions=True)
        await close_all(transport, shared, outbox, publisher)
    if error := running.exception():
        raise StartupError(f"The engine refused the API's workflow worker: {error}") from error


def prepared(
    settings: Settings, services: Services, parts: Shared, resolver: PlanResolver
) -> Callable[[], None]:
    """What takes over a changed configuration, once all that may fail has been built.

    Raises:
        StartupError: the process could not have been started by it.
    """
    completion_urls(settings)
    routes, guard, version = Routes(settings), SubmissionGuard.of(settings), version_of(settings)

    def adopt() -> None:
        parts.configure(settings)
        services.settings, services.config_version = settings, version
        services.routes = resolver.routes = routes
        services.guard = guard
        services.coalescer.settings = settings.coalescing
        services.overview.configure(tuple(settings.agents))
        services.admission.configure(settings)
        services.quotas.configure(settings.security.quotas)

    return adopt


def what_blocks(agent: str, pools: Pools, admission: Admission) -> Blocked | None:
    """What keeps the agent's queue waiting, as far as this process knows."""
    pool = pools.of_agent(agent)
    if refusal := pool.unavailability():
        wait = refusal.retry_after
        until = None if wait is None else datetime.now(UTC) + timedelta(seconds=wait)
        return Blocked(refusal.blocked_by, until)
    if pool.breaker_state is BreakerState.HALF_OPEN:
        return Blocked(BlockedBy.BREAKER)
    limit = admission.limits.of(agent)
    if limit is not None and limit.mode is LimitMode.QUEUE:
        return Blocked(BlockedBy.RATE_LIMIT)
    return None
