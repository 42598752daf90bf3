"""Sliding windows over the outcomes of calls, and the rates in them that are too much."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

BUCKETS = 10
"""Into how many parts a time window is cut; Polly cuts its sampling duration into as many."""


@dataclass(slots=True)
class Tally:
    """How many calls a window holds, and how many of them failed or were slow."""

    calls: int = 0
    failures: int = 0
    slow: int = 0

    def add(self, *, failed: bool, slow: bool) -> None:
        """Count one call."""
        self.calls += 1
        self.failures += failed
        self.slow += slow


class Window(Protocol):
    """What a breaker asks of a window. Times are seconds that never go backwards."""

    def record(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count one call that ended now."""
        ...

    def tally(self, now: float) -> Tally:
        """What the window holds now."""
        ...


class CountWindow:
    """The last ``calls`` calls, however old: memory for as many outcomes."""

    def __init__(self, calls: int) -> None:
        self._outcomes: deque[tuple[bool, bool]] = deque(maxlen=calls)
        self._failures = 0
        self._slow = 0

    def record(self, now: float, *, failed: bool, slow: bool) -> None:  # noqa: ARG002  time is no matter here
        """Count one call; the oldest of a full window is forgotten."""
        if len(self._outcomes) == self._outcomes.maxlen:
            forgotten_failed, forgotten_slow = self._outcomes[0]
            self._failures -= forgotten_failed
            self._slow -= forgotten_slow
        self._outcomes.append((failed, slow))
        self._failures += failed
        self._slow += slow

    def tally(self, now: float) -> Tally:  # noqa: ARG002  time is no matter here
        """What the window holds."""
        return Tally(len(self._outcomes), self._failures, self._slow)


class TimeWindow:
    """The calls of the last ``seconds``, in ten buckets whatever their number.

    Whole buckets are forgotten at once, so it reaches back between nine and ten tenths of
    ``seconds``. Resilience4j and Polly keep their time windows in the same way.
    """

    def __init__(self, seconds: float) -> None:
        self._bucket_seconds = seconds / BUCKETS
        self._buckets: deque[tuple[float, Tally]] = deque(maxlen=BUCKETS)

    def record(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count one call in the bucket of the present."""
        number = now // self._bucket_seconds
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append((number, Tally()))
        self._buckets[-1][1].add(failed=failed, slow=slow)

    def tally(self, now: float) -> Tally:
        """The sum of the buckets that are young enough."""
        oldest = now // self._bucket_seconds - BUCKETS
        young = [each for number, each in self._buckets if number > oldest]
        return Tally(
            sum(each.calls for each in young),
            sum(each.failures for each in young),
            sum(each.slow for each in young),
        )


@dataclass(frozen=True, kw_only=True)
class RatePolicy:
    """Which share of the calls may fail or be slow, as in Resilience4j; 0 < rate <= 1.

    Args:
        failure_rate: too much is when this share of the window's calls failed; None: nothing is.
        slow_call_rate: too much is when this share of the window's calls was slow, whether they
            succeeded or failed; None: no call is slow.
        slow_call_seconds: a call that took longer than this is slow.
        window_calls: the rates are those of so many last calls.
        window_seconds: when given, of the calls of so many last seconds instead.
        minimum_calls: with fewer calls in the window nothing is too much; a window of fewer calls
            needs to be full.

    Raises:
        ValueError: a value is out of its range.
    """

    failure_rate: float | None = None
    slow_call_rate: float | None = None
    slow_call_seconds: float = 60.0
    window_calls: int = 100
    window_seconds: float | None = None
    minimum_calls: int = 10

    def __post_init__(self) -> None:
        rates = (self.failure_rate, self.slow_call_rate)
        if not all(rate is None or 0 < rate <= 1 for rate in rates):
            raise ValueError("failure_rate and slow_call_rate: above 0, at most 1")
        if not self.slow_call_seconds >= 0:
            raise ValueError("slow_call_seconds: at least 0")
        if self.window_calls < 1 or self.minimum_calls < 1:
            raise ValueError("window_calls and minimum_calls: at least 1")
        if self.window_seconds is not None and not 0 < self.window_seconds < math.inf:
            raise ValueError("window_seconds: above 0, and finite")

    def new_window(self) -> Window:
        """An empty window."""
        if self.window_seconds is not None:
            return TimeWindow(self.window_seconds)
        return CountWindow(self.window_calls)

    def is_slow(self, seconds: float) -> bool:
        """Whether a call that took so long is slow."""
        return self.slow_call_rate is not None and seconds > self.slow_call_seconds

    def why_too_much(self, tally: Tally) -> str:
        """Which rate has been reached, for people; empty when none has."""
        most = self.window_calls if self.window_seconds is None else math.inf
        if tally.calls < min(self.minimum_calls, most):
            return ""
        if reaches(tally.failures, tally.calls, self.failure_rate):
            return f"{tally.failures} of {tally.calls} calls failed"
        if reaches(tally.slow, tally.calls, self.slow_call_rate):
            return f"{tally.slow} of {tally.calls} calls were slow"
        return ""


def reaches(count: int, calls: int, rate: float | None) -> bool:
    """Whether so many of the calls are at least the share; divided, since 0.07 * 100 > 7."""
    return rate is not None and count / calls >= rate
