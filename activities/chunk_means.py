"""What chunks of batches are carried out with."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.buckets import Buckets
from orchestrator.completions import CompletionUrls
from orchestrator.engine.converter import MAX_BLOB_BYTES
from orchestrator.limits import RateLimits
from orchestrator.messaging.outbox import Outbox
from orchestrator.resilience.pool import Pools
from orchestrator.transports import Transport


@dataclass(frozen=True)
class Means:
    """What chunks are carried out with; ``headers`` are those of each agent's configuration."""

    pools: Pools
    transport: Transport
    headers: Mapping[str, Mapping[str, str]]
    limits: RateLimits
    buckets: Buckets
    chance: Callable[[], float] = random.random
    grace_seconds: float = 30.0
    """What calls in flight may take once the worker is to stop."""
    completions: CompletionUrls | None = None
    sizes: dict[str, float] = field(default_factory=dict)
    """Bytes of the largest of each agent's latest answers."""
    outbox: Outbox | None = None
    """Where the broker is told of attempts."""
    max_bytes: int = MAX_BLOB_BYTES
    """Of one outcome."""

    def learn(self, agent: str, size: int) -> None:
        """An answer was so large."""
        self.sizes[agent] = max(size, 0.99 * self.sizes.get(agent, 0))
