"""The worker: runs workflows, and the calls of every agent from the agent's own task queue."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import uvloop
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from activities.call_agent import AgentCalls
from activities.chunk_means import Means
from activities.deliver_callback import CallbackSender
from activities.follow_parts import PartsFollower
from activities.heartbeats import HEARTBEAT_SECONDS
from activities.join_tasks import TaskJoiner
from activities.late_answers import LateAnswers
from activities.publish_events import EventPublisher
from activities.redrive import Redriver
from activities.resolve_plan import PlanResolver
from activities.run_chunk import ChunkCalls
from activities.start_callbacks import CallbackStarter
from activities.watch_health import HealthWatcher
from orchestrator.buckets import Buckets
from orchestrator.callback_keys import keys_of
from orchestrator.callbacks import CALLBACK_QUEUE
from orchestrator.cli import config_file, config_option, plain_errors
from orchestrator.config import Settings
from orchestrator.engine.agent_workers import AgentWorkers
from orchestrator.engine.callbacks import Callbacks
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.fleet_view import FIRST_LOOK_SECONDS, FleetView
from orchestrator.engine.queue_limits import QueueLimits
from orchestrator.engine.readiness import Readiness
from orchestrator.engine.slots import agent_tuner
from orchestrator.engine.tasks import Tasks
from orchestrator.engine.versions import make_current
from orchestrator.errors import StartupError
from orchestrator.fleet.records import FleetSnapshot
from orchestrator.limits import RateLimits
from orchestrator.live_settings import LiveSettings
from orchestrator.parts import (
    completion_urls,
    grace_of,
    in_background,
    metrics_server,
    settle,
    stop_on_signals,
)
from orchestrator.receivers import Receivers
from orchestrator.resilience.pool import Pool
from orchestrator.routing import Routes, agent_queue
from orchestrator.shared_parts import Shared, sharing
from orchestrator.telemetry import logging
from orchestrator.telemetry.logging import get_logger
from orchestrator.telemetry.tracing import tracing
from orchestrator.transports import Transport
from orchestrator.transports.webhooks import Webhooks
from workflows.hosting import workflow_worker

if TYPE_CHECKING:
    from orchestrator.telemetry.spans import Spans

log = get_logger(__name__)


@click.command()
@config_option
@plain_errors
def command(config_path: Path | None) -> None:
    """Run workflows and call agents.

    Stops on SIGINT or SIGTERM after the calls in flight have ended, at the latest after
    temporal.shutdown_grace. A configuration that has changed is taken over as it runs, on SIGHUP at
    once (docs/upgrades.md).

    \b
    Examples:
      orchestrator worker
      orchestrator worker --config production.yaml
    """
    live = LiveSettings(config_file(config_path))
    logging.configure(live.now.logging, "worker")
    uvloop.run(work(live))


async def work(live: LiveSettings) -> None:
    """Work until a signal.

    Raises:
        StartupError: the engine is not there, the metrics port is taken, or the engine has
            refused the worker for good.
    """
    live.reload_on_hangup()
    stop = stop_on_signals(grace_of(live.now))
    async with tracing("worker") as spans:
        await _work(live, stop, spans)


async def _work(live: LiveSettings, stop: asyncio.Event, spans: "Spans | None") -> None:
    settings = live.now
    with metrics_server(settings) as exposition:
        async with sharing(settings, "worker", exposition, spans) as shared:
            client, fleet = shared.client, shared.fleet
            parts = _Parts.of(settings, shared)
            workers = (
                general_worker(settings, parts),
                callback_worker(client, settings, parts.sender),
            )
            running = {each: asyncio.create_task(each.run()) for each in workers}
            await make_current(client, settings.temporal)
            await fleet.begin(FIRST_LOOK_SECONDS)
            parts.agents.adapt()
            async with in_background(
                fleet.run(), keep_limits(parts.metered, fleet), live.run(parts.prepared)
            ):
                settle()
                if exposition is not None:
                    exposition.ready(Readiness(client, settings.temporal.rpc_timeout, stop).problem)
                engine = settings.temporal.target
                log.info("worker_ready", agents=len(settings.agents), engine=engine)
                await _carry_on(running, parts.agents, stop)
    log.info("worker_stopped")


async def _carry_on(
    running: Mapping[Worker, asyncio.Task[None]], agents: AgentWorkers, stop: asyncio.Event
) -> None:
    """Let the workers work until a signal; their calls in flight have their grace after it.

    Raises:
        StartupError: the engine has refused one of them, which ends the others too.
    """
    stopping = asyncio.create_task(stop.wait())
    ending: set[asyncio.Future[Any]] = {stopping, agents.broken, *running.values()}
    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await asyncio.gather(agents.shutdown(), *(each.shutdown() for each in running))
    agents.broken.cancel()
    ends = await asyncio.gather(agents.broken, *running.values(), return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise StartupError(f"The engine refused this worker: {end}") from end


@dataclass(frozen=True)
class _Parts:
    """What the worker is made of; most of it goes by the configuration, and follows its changes."""

    shared: Shared
    calls: AgentCalls
    resolver: PlanResolver
    sender: CallbackSender
    limits: RateLimits
    metered: QueueLimits
    agents: AgentWorkers

    @classmethod
    def of(cls, settings: Settings, shared: Shared) -> Self:
        """Made, and listening to the fleet; no agent is served yet.

        Raises:
            StartupError: the key of callbacks cannot be kept.
        """
        limits = RateLimits(settings)
        shared.fleet.listen(lambda snapshot, _: limits.sync(snapshot))
        client, calls = shared.client, agent_calls(shared)
        chunks = chunk_calls(settings, shared, limits)
        return cls(
            shared=shared,
            calls=calls,
            resolver=PlanResolver(Routes(settings)),
            sender=callback_sender(settings),
            limits=limits,
            metered=QueueLimits(client, RateLimits(settings), settings.temporal.rpc_timeout),
            agents=AgentWorkers(
                shared.pools, lambda pool: agent_worker(client, settings, pool, calls, chunks)
            ),
        )

    def prepared(self, settings: Settings) -> Callable[[], None]:
        """What takes over a changed configuration, once all that may fail has been built.

        Raises:
            StartupError: the worker could not have been started by it.
        """
        completion_urls(settings)
        routes, sending = Routes(settings), sending_of(settings)

        def adopt() -> None:
            self.shared.configure(settings)
            self.resolver.routes = routes
            self.sender.configure(*sending)
            self.limits.configure(settings)
            self.metered.configure(settings)
            self.agents.adapt()

        return adopt


def agent_calls(shared: Shared) -> AgentCalls:
    """What calls agents for single tasks."""
    return AgentCalls(
        shared.pools,
        shared.transport,
        shared.headers,
        completions=shared.completions,
        outbox=shared.outbox,
    )


def chunk_calls(settings: Settings, shared: Shared, limits: RateLimits) -> ChunkCalls:
    """What calls agents for the items of batches."""
    return ChunkCalls(
        Means(
            shared.pools,
            shared.transport,
            shared.headers,
            limits,
            Buckets(shared.buckets),
            outbox=shared.outbox,
            grace_seconds=settings.temporal.shutdown_grace,
            completions=shared.completions,
            max_bytes=settings.max_blob_bytes,
        )
    )


def general_worker(settings: Settings, parts: _Parts) -> Worker:
    """The worker that runs workflows, and the activities of no agent."""
    shared = parts.shared
    return workflow_worker(
        shared.client,
        parts.calls,
        parts.resolver,
        grace_of(settings),
        long_activities=general_activities(
            shared.client, settings, shared.transport, shared.headers
        ),
        events=EventPublisher(shared.outbox, shared.publisher),
        versioning=settings.temporal.versioning,
    )


def general_activities(
    client: Client,
    settings: Settings,
    transport: Transport,
    headers: Mapping[str, Mapping[str, str]],
) -> list[Callable[..., Any]]:
    """The activities of no agent: health checks, joins, redriving, starting callbacks."""
    late = LateAnswers(transport, headers)
    joiner = TaskJoiner.of(client, settings.temporal.rpc_timeout)
    redriver = Redriver(DeadLetters(client, settings.temporal.rpc_timeout))
    return [
        HealthWatcher(transport.probe).watch_health,
        late.await_answer,
        late.poll_answer,
        redriver.redrive_many,
        redriver.redrive_agent,
        PartsFollower(client, settings.temporal.rpc_timeout).follow_parts,
        joiner.join_tasks,
        joiner.cancel_tasks,
        joiner.redrive_tasks,
        callback_starter(client, settings.temporal.rpc_timeout).start_callbacks,
    ]


def callback_starter(client: Client, rpc_timeout: float) -> CallbackStarter:
    """What starts the callbacks of batches' items."""
    return CallbackStarter(Tasks(client, rpc_timeout), Callbacks(client, rpc_timeout))


def callback_sender(settings: Settings, receivers: Receivers | None = None) -> CallbackSender:
    """What delivers callbacks as the configuration says; ``receivers`` may resolve otherwise."""
    return CallbackSender(*sending_of(settings, receivers))


def sending_of(
    settings: Settings, receivers: Receivers | None = None
) -> tuple[Webhooks, tuple[bytes, ...], tuple[float, ...]]:
    """By what callbacks are sent, by which keys they are signed, and when they are repeated.

    Raises:
        StartupError: the kept key cannot be read, or not be written.
    """
    section = settings.callbacks
    webhooks = Webhooks(receivers or Receivers.of(settings), section.timeout)
    return webhooks, keys_of(settings), section.retry_delays


def callback_worker(client: Client, settings: Settings, sender: CallbackSender) -> Worker:
    """The worker that delivers callbacks, so many at once."""
    return Worker(
        client,
        task_queue=CALLBACK_QUEUE,
        activities=[sender.deliver_callback],
        max_concurrent_activities=settings.callbacks.max_connections,
        graceful_shutdown_timeout=grace_of(settings),
    )


async def keep_limits(limits: QueueLimits, fleet: FleetView) -> None:
    """Keep the queues' limits as the configuration and the operators have them, until cancelled.

    Not before the fleet has told what operators set, or theirs would be lifted for a moment.
    """
    fleet.listen(lambda snapshot, _: limits.sync(snapshot))
    await fleet.known.wait()
    limits.sync(FleetSnapshot(version=fleet.version, agents=fleet.agents))
    await limits.run()


def agent_worker(
    client: Client, settings: Settings, pool: Pool, calls: AgentCalls, chunks: ChunkCalls
) -> Worker:
    """The worker of one agent's queue: its slots are what the pool says the agent can take."""
    return Worker(
        client,
        task_queue=agent_queue(pool.agent),
        activities=[calls.call_agent, chunks.run_chunk],
        tuner=agent_tuner(pool),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(minimum=1, maximum=20, initial=2),
        graceful_shutdown_timeout=grace_of(settings),
        # A heartbeat is how a cancellation reaches a call, so none is held back for long.
        max_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS),
        default_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS),
    )
