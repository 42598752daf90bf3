"""A token bucket: so many calls at once after a pause, and then at a steady rate."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.models import RateLimit

SECONDS_A_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What a bucket says about one call.

    Args:
        limit: the limit that it was held against.
        tokens: what is left in the bucket.
        allowed: whether a token was taken, or could have been.
    """

    limit: RateLimit
    tokens: float
    allowed: bool

    @property
    def remaining(self) -> int:
        """Whole tokens that are left."""
        return int(self.tokens)

    @property
    def retry_after(self) -> float:
        """Seconds until the next whole token; 0 while there is one."""
        return self._seconds_until(1)

    @property
    def full_after(self) -> float:
        """Seconds until the bucket is full."""
        return self._seconds_until(self.limit.burst)

    def _seconds_until(self, tokens: int) -> float:
        return max(0.0, tokens - self.tokens) * SECONDS_A_MINUTE / self.limit.rate


class TokenBucket:
    """The bucket of one agent in this process, full at first; the clock is monotonic, in seconds.

    In no time of ``t`` seconds are more than ``burst + rate * t / 60`` tokens taken and not given
    back. A clock that goes back adds nothing, and counts on from where it is.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._tokens = float(limit.burst)
        self._at = clock()

    @property
    def limit(self) -> RateLimit:
        """The limit that holds now."""
        return self._limit

    def change(self, limit: RateLimit) -> None:
        """Hold another limit from now on; tokens over its burst are lost, others stay."""
        self._refill()
        self._limit = limit
        self._tokens = min(self._tokens, limit.burst)

    def try_take(self) -> Decision:
        """Take a token if there is one."""
        self._refill()
        allowed = self._tokens >= 1
        if allowed:
            self._tokens -= 1
        return Decision(self._limit, self._tokens, allowed)

    def look(self) -> Decision:
        """What ``try_take`` would say, without taking."""
        self._refill()
        return Decision(self._limit, self._tokens, self._tokens >= 1)

    def give_back(self) -> None:
        """Undo one ``try_take``; a full bucket stays full."""
        self._refill()
        self._tokens = min(self._tokens + 1, self._limit.burst)

    def _refill(self) -> None:
        now = self._clock()
        added = max(0.0, now - self._at) * self._limit.rate / SECONDS_A_MINUTE
        self._tokens = min(self._tokens + added, self._limit.burst)
        self._at = now
