"""The parts behind the API, opened and closed in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from temporalio.worker import Worker

from activities.call_agent import AgentCalls
from activities.publish_events import EventPublisher
from activities.resolve_plan import PlanResolver
from api.dependencies import Process, Services
from orchestrator.admission import Admission
from orchestrator.coalescing import Coalescer
from orchestrator.config import Settings
from orchestrator.config_changes import version_of
from orchestrator.engine.aggregates import Aggregates
from orchestrator.engine.callbacks import Callbacks
from orchestrator.engine.cancellations import Cancellations
from orchestrator.engine.completions import Completions
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.embedded import STARTS_AT_ONCE
from orchestrator.engine.fleet_view import FIRST_LOOK_SECONDS
from orchestrator.engine.live_events import LiveEvents
from orchestrator.engine.overview import Overview
from orchestrator.engine.priorities import Priorities
from orchestrator.engine.readiness import Readiness
from orchestrator.engine.record import Blocked
from orchestrator.engine.redrives import Redrives
from orchestrator.engine.returned import Returned
from orchestrator.engine.start_turns import share_starts
from orchestrator.engine.task_counts import TaskCounts
from orchestrator.engine.tasks import Tasks
from orchestrator.engine.traffic import Traffic
from orchestrator.engine.turns import Turns
from orchestrator.engine.usage import Usage
from orchestrator.engine.versions import make_current
from orchestrator.errors import StartupError
from orchestrator.models import BlockedBy, LimitMode
from orchestrator.parts import completion_urls, grace_of, in_background
from orchestrator.receivers import SubmissionGuard
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.resilience.pool import Pools
from orchestrator.routing import Routes
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.quotas import Quotas
from orchestrator.security.sessions import Sessions
from orchestrator.shared_parts import Shared, sharing
from orchestrator.telemetry.exposition import Exposition
from workflows.hosting import workflow_worker

if TYPE_CHECKING:
    from orchestrator.telemetry.spans import Spans

PART = "api"
"""What this process is called by the engine, before its number."""


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
    authenticator, resolver = Authenticator(settings), PlanResolver(Routes(settings))
    returned = Returned()
    async with (
        sharing(settings, PART, exposition, spans) as shared,
        running(worker_of(settings, shared, resolver, returned)) as workflows,
    ):
        process = Process(exposition, stopping, workflows)
        services = services_of(settings, shared, resolver, authenticator, process, returned)
        shared.fleet.listen(lambda snapshot, _: services.admission.sync(snapshot))
        await make_current(shared.client, settings.temporal)
        await shared.fleet.begin(FIRST_LOOK_SECONDS)
        if exposition is not None:
            exposition.ready(services.readiness.problem)
        works = [services.overview.run(), shared.fleet.run()]
        if services.tasks.starts is not None:
            timeout = settings.temporal.rpc_timeout
            works.append(share_starts(shared.client, services.tasks.starts, PART, timeout))
        async with in_background(*works):
            yield services


def worker_of(
    settings: Settings, shared: Shared, resolver: PlanResolver, returned: Returned
) -> Worker:
    """The worker that carries out workflows beside the API."""
    calls = AgentCalls(
        shared.pools,
        shared.transport,
        shared.headers,
        completions=shared.completions,
        outbox=shared.outbox,
    )
    return workflow_worker(
        shared.client,
        calls,
        resolver,
        grace_of(settings),
        events=EventPublisher(shared.outbox, shared.publisher),
        versioning=settings.temporal.versioning,
        interceptors=[returned],
    )


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """Have the worker run beside the block; what is yielded ends with it.

    Raises:
        StartupError: the engine has refused it.
    """
    run = asyncio.create_task(worker.run())
    try:
        yield run
    finally:
        await worker.shutdown()
        await asyncio.gather(run, return_exceptions=True)
    if error := run.exception():
        raise StartupError(f"The engine refused the API's workflow worker: {error}") from error


def services_of(
    settings: Settings,
    shared: Shared,
    resolver: PlanResolver,
    authenticator: Authenticator,
    process: Process,
    returned: Returned,
) -> Services:
    """What the routers work with; nothing is asked of the engine yet."""
    client, timeout = shared.client, settings.temporal.rpc_timeout
    tasks, overview, admission = queue_of(settings, shared, returned)
    counts = TaskCounts(client, tasks, timeout)
    aggregates = Aggregates(client, timeout)
    services = Services(
        settings=settings,
        config_version=version_of(settings),
        routes=resolver.routes,
        tasks=tasks,
        coalescer=Coalescer(settings.coalescing, tasks.batches.starts.coalesced, timeout),
        overview=overview,
        counts=counts,
        admission=admission,
        fleet=shared.fleet,
        dead_letters=DeadLetters(client, timeout),
        redrives=Redrives(client, timeout),
        cancellations=Cancellations(client, timeout),
        aggregates=aggregates,
        priorities=Priorities(client, tasks, timeout),
        callbacks=Callbacks(client, timeout),
        guard=SubmissionGuard.of(settings),
        live=LiveEvents(client, tasks, aggregates, timeout),
        completions=Completions(client, timeout),
        completion_urls=shared.completions,
        traffic=Traffic(client, timeout),
        authenticator=authenticator,
        quotas=Quotas(settings.security.quotas, Usage(client, timeout), shared.buckets),
        sessions=Sessions(settings.security, authenticator),
        prepare=lambda settings: prepared(settings, services, shared, resolver),
        readiness=Readiness(client, timeout, process.stopping),
        process=process,
    )
    return services


def queue_of(
    settings: Settings, shared: Shared, returned: Returned
) -> tuple[Tasks, Overview, Admission]:
    """The tasks, how many wait, and how many more may.

    The overview looks at batches, and tasks ask admission what they wait for.
    """
    timeout = settings.temporal.rpc_timeout
    tasks = Tasks(
        shared.client,
        timeout,
        lambda agent: what_blocks(agent, shared.pools, admission),
        # Other engines may be of a version that refuses it, and versions are other builds.
        notes_builds=settings.temporal.is_embedded and not settings.temporal.versioning.enabled,
        returned=returned,
        starts=Turns(STARTS_AT_ONCE) if settings.temporal.is_embedded else None,
    )
    overview = Overview(shared.client, tasks.batches.lists, tuple(settings.agents), timeout)
    admission = Admission(settings, shared.pools, overview, shared.buckets)
    return tasks, overview, admission


def prepared(
    settings: Settings, services: Services, shared: Shared, resolver: PlanResolver
) -> Callable[[], None]:
    """What takes over a changed configuration, once all that may fail has been built.

    Raises:
        StartupError: the process could not have been started by it.
    """
    completion_urls(settings)
    routes, guard, version = Routes(settings), SubmissionGuard.of(settings), version_of(settings)

    def adopt() -> None:
        shared.configure(settings)
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
