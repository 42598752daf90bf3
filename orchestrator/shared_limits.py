"""Token buckets in Redis, which all API processes share; each decision is one atomic script."""

import asyncio
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from orchestrator.config import Settings
from orchestrator.errors import StartupError
from orchestrator.models import RateLimit
from orchestrator.resilience.limiter import SECONDS_A_MINUTE, Decision
from orchestrator.telemetry.logging import get_logger

ANSWER_SECONDS = 0.1
"""A request waits no longer than this for Redis."""
REST_SECONDS = 1.0
"""After Redis did not answer, it is asked no more for so long."""

# The same bucket as orchestrator/resilience/limiter.py, by the clock of Redis. A key lives until
# its bucket would be full, which is what no key stands for.
_SCRIPT = """
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(held[1]) or burst, tonumber(held[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) * rate)
local allowed = 0
if wanted > 0 then
  if tokens >= 1 then allowed = 1 end
  tokens = tokens - allowed
elseif wanted < 0 then
  tokens = math.min(burst, tokens + 1)
elseif tokens >= 1 then
  allowed = 1
end
if wanted ~= 0 then
  redis.call('HSET', KEYS[1], 'tokens', string.format('%.9f', tokens), 'at', string.format('%.6f', now))
  redis.call('PEXPIRE', KEYS[1], math.min(math.ceil((burst - tokens) / rate * 1000) + 1000, 4000000000))
end
return {allowed, string.format('%.9f', tokens)}
"""  # noqa: E501 - a statement a line

_TAKE, _LOOK, _GIVE_BACK = 1, 0, -1

log = get_logger(__name__)


class SharedBuckets:
    """The buckets of all agents in one Redis.

    Every method answers None when Redis does not answer in time, and costs nothing for a second
    after that: the caller then goes by its own bucket.
    """

    def __init__(
        self, redis: Redis, prefix: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._clock = clock
        self._script = redis.register_script(_SCRIPT)
        self._rests_until = float("-inf")
        self._answers = True

    @classmethod
    def of(cls, settings: Settings) -> "SharedBuckets | None":
        """The buckets in the Redis of ``rate_limiting.redis``; None where it is not set.

        Raises:
            StartupError: the URL is not one that Redis's client can use.
        """
        url = settings.rate_limiting.redis
        if url is None:
            return None
        try:
            redis = Redis.from_url(
                url.get_secret_value(),
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
                # It would use asyncio.wait_for, which in Python 3.11 swallows a cancellation that
                # comes as the wait ends. ANSWER_SECONDS bounds all that is asked.
                socket_timeout=None,
            )
        except (ValueError, TypeError):
            # Its reason may quote the password.
            raise StartupError(
                "rate_limiting.redis cannot be used; write it as redis://host:6379/0, or "
                "rediss://user:password@host:6379/0"
            ) from None
        return cls(redis, f"orchestrator:{settings.temporal.namespace}:limit:")

    async def try_take(self, agent: str, limit: RateLimit) -> Decision | None:
        """Take a token of the agent's if there is one."""
        return await self._ask(agent, limit, _TAKE)

    async def look(self, agent: str, limit: RateLimit) -> Decision | None:
        """What ``try_take`` would say, without taking."""
        return await self._ask(agent, limit, _LOOK)

    async def give_back(self, agent: str, limit: RateLimit) -> None:
        """Undo one ``try_take``; a full bucket stays full."""
        await self._ask(agent, limit, _GIVE_BACK)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _ask(self, agent: str, limit: RateLimit, wanted: int) -> Decision | None:
        if self._clock() < self._rests_until:
            return None
        if not self._answers:
            # One request finds out whether it is back; the others do not wait for that.
            self._rests_until = self._clock() + REST_SECONDS
        arguments = [limit.rate / SECONDS_A_MINUTE, limit.burst, wanted]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                allowed, tokens = await self._script([self._prefix + agent], arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return None
        self._answered()
        return Decision(limit, float(tokens), bool(allowed))

    def _failed(self, error: Exception) -> None:
        self._rests_until = self._clock() + REST_SECONDS
        if self._answers:
            self._answers = False
            log.warning(
                "rate_limits_not_shared",
                error=str(error) or "no answer in time",
                advice="Redis (rate_limiting.redis) does not answer; until it does, each API "
                "process keeps the limits by itself",
            )

    def _answered(self) -> None:
        self._rests_until = float("-inf")
        if not self._answers:
            self._answers = True
            log.info("rate_limits_shared_again")
