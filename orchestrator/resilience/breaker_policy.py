"""A circuit breaker's vocabulary: its states, when it changes them, and what a change is."""

import math
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.resilience.window import RatePolicy


class BreakerState(StrEnum):
    """What a breaker does with the next call."""

    CLOSED = "closed"
    """Admits every call."""
    HALF_OPEN = "half_open"
    """Admits a few trial calls at a time."""
    OPEN = "open"
    """Admits none until a time."""
    FORCED_OPEN = "forced_open"
    """Admits none until an operator resets it."""
    DISABLED = "disabled"
    """Admits every call and records nothing until an operator resets it."""


HELD = frozenset({BreakerState.FORCED_OPEN, BreakerState.DISABLED})
"""The states that only an operator ends."""


@dataclass(frozen=True, kw_only=True)
class BreakerPolicy(RatePolicy):
    """When a breaker opens, for how long, and what closes it.

    Args:
        consecutive_failures: opens at so many failures in a row; None: never for that. The
            arguments of RatePolicy say at which rates it opens.
        open_seconds: how long it stays open at first.
        open_backoff: the factor by which that grows with each failed round of trials. Whatever
            closes the breaker puts it back to ``open_seconds``.
        max_open_seconds: the cap of that growth, and of what another process's record asks for.
        half_open_permits: how many trial calls may be in flight at a time.
        half_open_successes: how many trials must succeed, with no failure between them, to close
            it; None: as many as ``half_open_permits``. When ``slow_call_rate`` of them were slow
            it reopens instead.
        half_open_wait_seconds: when trials are in flight, and for so long none was started or
            ended, they count as lost and it opens again (maxWaitDurationInHalfOpenState). Must
            exceed the calls' timeout, or the trials of a slow instance are never counted.

    Raises:
        ValueError: a value is out of its range.
    """

    consecutive_failures: int | None = 5
    open_seconds: float = 30.0
    open_backoff: float = 2.0
    max_open_seconds: float = 300.0
    half_open_permits: int = 3
    half_open_successes: int | None = None
    half_open_wait_seconds: float = 600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = (self.consecutive_failures, self.half_open_permits, self.half_open_successes)
        if not all(count is None or count >= 1 for count in counts):
            raise ValueError("failures, permits and successes: at least 1")
        if not (0 < self.open_seconds < math.inf and 0 < self.half_open_wait_seconds < math.inf):
            raise ValueError("open_seconds and half_open_wait_seconds: above 0, and finite")
        if not 1 <= self.open_backoff < math.inf:
            raise ValueError("open_backoff: at least 1, and finite")
        if not self.open_seconds <= self.max_open_seconds < math.inf:
            raise ValueError("max_open_seconds: at least open_seconds, and finite")


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state.

    Args:
        before: the state that was left.
        after: the state that was entered.
        at: since when, by the breaker's clock; a change that time brought about counts from when
            it was due, not from when somebody looked.
        reason: why, for people.
        own: this process found it out, by its calls or its clock; False for an operator's order
            and for an adopted record, which need not be told to the other processes again.
    """

    before: BreakerState
    after: BreakerState
    at: float
    reason: str
    own: bool
