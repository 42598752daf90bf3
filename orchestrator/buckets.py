"""The agents' token buckets: shared by all processes through Redis, or this process's own."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.models import RateLimit
from orchestrator.resilience.limiter import Decision, TokenBucket

if TYPE_CHECKING:
    from orchestrator.shared_limits import SharedBuckets


class Buckets:
    """The shared buckets while they can be had, else this process's own.

    What is taken from the shared ones is taken from the own ones too, so that losing the shared
    ones fills no bucket.
    """

    def __init__(
        self, shared: "SharedBuckets | None" = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._own: dict[str, TokenBucket] = {}

    async def try_take(self, agent: str, limit: RateLimit) -> Decision:
        """Take a token of the agent's, if there is one."""
        own = self._of(agent, limit).try_take()
        shared = await self._shared.try_take(agent, limit) if self._shared else None
        if shared is not None and own.allowed and not shared.allowed:
            self._of(agent, limit).give_back()
        return shared or own

    async def look(self, agent: str, limit: RateLimit) -> Decision:
        """What ``try_take`` would decide now; takes nothing."""
        shared = await self._shared.look(agent, limit) if self._shared else None
        return shared or self._of(agent, limit).look()

    async def give_back(self, agent: str, limit: RateLimit) -> None:
        """Return a token that was taken and not used."""
        self._of(agent, limit).give_back()
        if self._shared:
            await self._shared.give_back(agent, limit)

    def _of(self, agent: str, limit: RateLimit) -> TokenBucket:
        bucket = self._own.get(agent)
        if bucket is None:
            bucket = self._own[agent] = TokenBucket(limit, self._clock)
        # It is the same object, but for a change; to compare two costs as much as the rest.
        elif bucket.limit is not limit and bucket.limit != limit:
            bucket.change(limit)
        return bucket
