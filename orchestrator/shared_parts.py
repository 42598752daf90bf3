"""What API and worker processes alike call agents by, and are connected to: engine and broker."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from temporalio.client import Client

from orchestrator.completions import CompletionUrls
from orchestrator.config import Settings
from orchestrator.engine.connect import connect
from orchestrator.engine.fleet import Fleet, fleet_config
from orchestrator.engine.fleet_view import FleetView
from orchestrator.engine.payloads import converter_of
from orchestrator.messaging.outbox import Outbox, by_workflow
from orchestrator.messaging.publishers import Publisher, publisher_of
from orchestrator.parts import agent_transport, completion_urls, interceptors, secret_headers
from orchestrator.resilience.pool import Pools
from orchestrator.telemetry.exposition import Exposition
from orchestrator.transports.by_scheme import AgentTransport

if TYPE_CHECKING:
    from orchestrator.shared_limits import SharedBuckets
    from orchestrator.telemetry.spans import Spans


class Closeable(Protocol):
    """What holds connections."""

    async def close(self) -> None:
        """Give them up."""
        ...


def _shared_buckets(settings: Settings) -> "SharedBuckets | None":
    if settings.rate_limiting.redis is None:
        return None
    from orchestrator.shared_limits import SharedBuckets  # noqa: PLC0415 - none pays for it

    return SharedBuckets.of(settings)


@dataclass(frozen=True)
class Shared:
    """The parts, some of which go by the configuration and follow its changes."""

    client: Client
    pools: Pools
    fleet: FleetView
    headers: dict[str, dict[str, str]]
    transport: AgentTransport
    buckets: "SharedBuckets | None"
    completions: CompletionUrls | None
    publisher: Publisher | None
    outbox: Outbox

    @classmethod
    def of(
        cls, settings: Settings, client: Client, process: str, spans: "Spans | None" = None
    ) -> Self:
        """Those of a process, which has this name.

        Raises:
            StartupError: the configuration lacks something, or cannot be followed here.
        """
        timeout = settings.temporal.rpc_timeout
        publisher, pools = publisher_of(settings), Pools.of(settings)
        fleet = FleetView(Fleet(client, timeout), fleet_config(settings), process)
        fleet.watch(pools)
        return cls(
            client=client,
            pools=pools,
            fleet=fleet,
            headers=secret_headers(settings),
            transport=agent_transport(settings, spans),
            buckets=_shared_buckets(settings),
            completions=completion_urls(settings),
            publisher=publisher,
            outbox=Outbox(publisher, by_workflow(client, timeout)),
        )

    def configure(self, settings: Settings) -> None:
        """Go by another configuration."""
        self.pools.configure(settings)
        self.fleet.configure(fleet_config(settings))
        self.headers.clear()
        self.headers.update(secret_headers(settings))
        self.transport.configure(settings)

    async def close(self) -> None:
        """Close what holds connections to agents, Redis and the broker, in this order."""
        held: tuple[Closeable | None, ...]
        held = (self.transport, self.buckets, self.outbox, self.publisher)
        for part in held:
            if part is not None:
                await part.close()


@asynccontextmanager
async def sharing(
    settings: Settings, kind: str, exposition: Exposition | None, spans: "Spans | None"
) -> AsyncIterator[Shared]:
    """Connect a process of that kind, api or worker, for as long as the block takes.

    Raises:
        StartupError: no engine answers, or it refuses us; or as Shared.of.
    """
    process = f"{kind}@{os.getpid()}"
    converter = converter_of(settings)
    client = await connect(
        settings.temporal, process, exposition, interceptors(spans), converter=converter
    )
    shared = Shared.of(settings, client, process, spans)
    try:
        yield shared
    finally:
        await shared.close()
