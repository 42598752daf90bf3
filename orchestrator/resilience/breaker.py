"""The circuit breaker of one instance: whether a call may be made now, by how earlier ones ended.

                failures in a row, or a rate
     CLOSED ──────────────────────────────────> OPEN <─────┐
        ^                                        │         │ a trial failed: open for longer
        │                            time is up  │         │ no trial ended in time: as long
        └────────────────────── HALF_OPEN <──────┘         │ as before
          enough trials            └───────────────────────┘
          succeeded
     FORCED_OPEN and DISABLED: entered by an operator, left by an operator's ``reset``.

Built like sony/gobreaker: a generation counter drops what earlier states' calls report late, and
time brings about its changes when somebody looks. Rates, slow calls and the wait in half-open
follow Resilience4j. It is not thread-safe: one event loop uses it, and nothing in it awaits.
Times are seconds of the injected clock; a clock that goes backwards is read as standing still.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from orchestrator.resilience.breaker_policy import HELD, BreakerPolicy, BreakerState, Transition
from orchestrator.resilience.window import reaches

logger = logging.getLogger(__name__)


class Permit:
    """The leave to make one call; say how it ended, once: what is said later does nothing.

    As a context manager it is released as ignored unless something was said before.
    """

    __slots__ = ("_breaker", "_generation", "_used")

    def __init__(self, breaker: "Breaker", generation: int) -> None:
        self._breaker = breaker
        self._generation = generation
        self._used = False

    def success(self, seconds: float) -> None:
        """The call succeeded after so many seconds."""
        self._report(seconds)

    def failure(self, seconds: float, reason: str = "") -> None:
        """The call failed after so many seconds; the reason is one sentence for people."""
        self._report(seconds, failed=True, reason=reason)

    def ignore(self) -> None:
        """The call says nothing of the instance's health: cancelled, a 429, a permanent 4xx."""
        self._report(None)

    def _report(self, seconds: float | None, *, failed: bool = False, reason: str = "") -> None:
        if not self._used:
            self._used = True
            self._breaker._ended(self._generation, seconds, failed=failed, reason=reason)  # noqa: SLF001  the two are one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.ignore()


class Breaker:
    """The state machine.

    Every property tells what holds now, as ``try_acquire`` would find it: looking makes the
    changes that are due by time, so it may call the listener.

    Args:
        policy: when to open and to close.
        clock: seconds, monotonic.
        on_change: called with each change of state after it is complete, in order, one at a time.
            It may use the breaker: changes it makes are told when it has returned. An exception
            in it is logged and changes nothing.
    """

    def __init__(
        self,
        policy: BreakerPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[Transition], None] | None = None,
    ) -> None:
        self.policy = policy or BreakerPolicy()
        self._clock = clock
        self._on_change = on_change
        self._untold: deque[Transition] = deque()
        self._telling = False
        self._now = self._since = clock()
        self._state = BreakerState.CLOSED
        self._reason = ""
        self._generation = 0
        self._window = self.policy.new_window()
        self._failures = 0
        self._in_flight = self._trials = self._slow_trials = 0
        self._stirred_at = self._now  # when a trial last started or ended
        self._open_for = self.policy.open_seconds
        self._retry_at = -math.inf
        self._judged_at = -math.inf  # of the last change that a lapse of time did not make
        self._adopted: int | None = None

    @property
    def state(self) -> BreakerState:
        """The state of now."""
        if self._state is not BreakerState.CLOSED:
            self._settle()
        return self._state

    @property
    def available(self) -> bool:
        """Whether a call would be admitted now."""
        state = self.state
        if state is BreakerState.HALF_OPEN:
            return self._in_flight < self.policy.half_open_permits
        return state in {BreakerState.CLOSED, BreakerState.DISABLED}

    @property
    def retry_at(self) -> float | None:
        """The clock's time from when an open one may be tried; None in every other state."""
        return self._retry_at if self.state is BreakerState.OPEN else None

    @property
    def since(self) -> float:
        """The clock's time when the present state was entered."""
        self._settle()
        return self._since

    @property
    def failures(self) -> int:
        """The failures in a row that were recorded since it last closed, trials included."""
        self._settle()
        return self._failures

    @property
    def last_reason(self) -> str:
        """Why it is in its state, for people; empty as long as nothing has happened."""
        self._settle()
        return self._reason

    def configure(self, policy: BreakerPolicy) -> None:
        """Go by another policy from now on; its state stays, and an open one is open as long."""
        before, self.policy = self.policy, policy
        if (policy.window_calls, policy.window_seconds) != (
            before.window_calls,
            before.window_seconds,
        ):
            self._window = policy.new_window()
        if self._open_for == before.open_seconds:
            self._open_for = policy.open_seconds
        self._open_for = min(self._open_for, policy.max_open_seconds)

    def try_acquire(self) -> Permit | None:
        """The permit for one call, or None when there is none now."""
        if not self.available:
            return None
        if self._state is BreakerState.HALF_OPEN:
            self._in_flight += 1
            self._stirred_at = self._now
        return Permit(self, self._generation)

    def force_open(self, reason: str) -> None:
        """Admit no call until ``reset``."""
        self._order(BreakerState.FORCED_OPEN, reason)

    def disable(self, reason: str) -> None:
        """Admit every call and record nothing until ``reset``."""
        self._order(BreakerState.DISABLED, reason)

    def reset(self, reason: str, age_seconds: float = 0.0) -> None:
        """Close it from any state, forgetting every count and how long it was open last.

        Even a closed one forgets its counts, so say it once, not with every look at the fleet.
        What others found out since the order, ``age_seconds`` ago, may still be adopted.
        """
        self._order(BreakerState.CLOSED, reason, age_seconds)

    def adopt(
        self,
        state: BreakerState,
        *,
        version: int,
        age_seconds: float,
        remaining_seconds: float = 0.0,
        reason: str = "",
    ) -> None:
        """Merge what another process found out about the same instance: the later word holds.

        An open one opens ours, or keeps it open for longer, and counts as no failure of ours; one
        that closed closes ours. Half-open is each process's own affair, and the operator's states
        come by ``force_open`` and ``disable``, so those records say nothing here. Nor does any
        record say anything while an operator's state holds, or when a change here is later.
        That time was up is not such a change: it proves nothing about the instance.

        Args:
            state: the other breaker's state.
            version: of the record; the one adopted last is not looked at again.
            age_seconds: how long ago the other breaker changed.
            remaining_seconds: how long the other stays open from now.
            reason: the other's, for people.
        """
        now = self._settle()
        changed_at = now - max(age_seconds, 0.0)
        if version == self._adopted or self._state in HELD or changed_at <= self._judged_at:
            return
        self._adopted = version
        if state is BreakerState.OPEN and remaining_seconds > 0:
            self._judged_at = changed_at
            seconds = min(remaining_seconds, self.policy.max_open_seconds)
            if self._state is BreakerState.OPEN:
                self._retry_at = max(self._retry_at, now + seconds)
            else:
                self._open(now, seconds, reason, own=False)
        elif state is BreakerState.CLOSED and self._state is not BreakerState.CLOSED:
            self._judged_at = changed_at
            self._transition(BreakerState.CLOSED, now, reason, own=False)

    def _settle(self) -> float:
        """Make the changes that time has brought about; the time of now."""
        self._now = max(self._now, self._clock())
        if self._state is BreakerState.HALF_OPEN and self._in_flight:
            lost_at = self._stirred_at + self.policy.half_open_wait_seconds
            if self._now >= lost_at:
                reason = f"trial calls without an outcome in time: {self._in_flight}"
                self._open(lost_at, self._open_for, reason)
        if self._state is BreakerState.OPEN and self._now >= self._retry_at:
            self._transition(BreakerState.HALF_OPEN, self._retry_at, "it may be tried again")
        return self._now

    def _ended(self, generation: int, seconds: float | None, *, failed: bool, reason: str) -> None:
        """One call ended; without seconds its outcome is ignored."""
        now = self._settle()
        if generation != self._generation or self._state is BreakerState.DISABLED:
            return
        trial = self._state is BreakerState.HALF_OPEN
        if trial:
            self._in_flight -= 1
            self._stirred_at = now
        if seconds is None:
            return
        self._failures = self._failures + 1 if failed else 0
        slow = self.policy.is_slow(seconds)
        if trial:
            self._judge_trial(now, failed=failed, slow=slow, reason=reason)
        else:
            self._window.record(now, failed=failed, slow=slow)
            why = self._why_open(now, reason)
            if why:
                self._judged_at = now
                self._open(now, self._open_for, why)

    def _judge_trial(self, now: float, *, failed: bool, slow: bool, reason: str) -> None:
        """Reopen for longer, close, or wait for more trials."""
        policy = self.policy
        self._trials += 1
        self._slow_trials += slow
        enough = self._trials >= (policy.half_open_successes or policy.half_open_permits)
        too_slow = reaches(self._slow_trials, self._trials, policy.slow_call_rate)
        if failed or (enough and too_slow):
            why = f"slow trial calls: {self._slow_trials} of {self._trials}"
            if failed:
                why = because("a trial call failed", reason)
            self._judged_at = now
            self._open_for = min(self._open_for * policy.open_backoff, policy.max_open_seconds)
            self._open(now, self._open_for, why)
        elif enough:
            self._judged_at = now
            self._transition(BreakerState.CLOSED, now, f"successful trial calls: {self._trials}")

    def _why_open(self, now: float, reason: str) -> str:
        """Why a closed one must open; empty when it need not."""
        limit = self.policy.consecutive_failures
        if limit is not None and self._failures >= limit:
            return because(f"failures in a row: {self._failures}", reason)
        too_much = self.policy.why_too_much(self._window.tally(now))
        return because(too_much, reason) if too_much else ""

    def _order(self, state: BreakerState, reason: str, age_seconds: float = 0.0) -> None:
        """Do what an operator says, or said so long ago."""
        now = self._settle()
        self._judged_at = now - max(age_seconds, 0.0)
        self._transition(state, now, reason, own=False)

    def _open(self, at: float, seconds: float, reason: str, *, own: bool = True) -> None:
        """Open for so long."""
        self._retry_at = at + seconds
        self._transition(BreakerState.OPEN, at, reason, own=own)

    def _transition(self, after: BreakerState, at: float, reason: str, *, own: bool = True) -> None:
        """The one place where the state changes: a new generation, with nothing counted yet.

        It ends with the listener, which may change the state again: callers do nothing after it
        that rests on what they knew before.
        """
        before, self._state = self._state, after
        self._generation += 1
        self._window = self.policy.new_window()
        self._in_flight = self._trials = self._slow_trials = 0
        self._reason = reason
        if after is BreakerState.CLOSED:
            self._failures = 0
            self._open_for = self.policy.open_seconds
        if after is not before:
            self._since = at
            self._tell(Transition(before, after, at, reason, own))

    def _tell(self, transition: Transition) -> None:
        """Tell the listener, unless this is its own doing: then the telling goes on after it."""
        if self._on_change is None:
            return
        self._untold.append(transition)
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                told = self._untold.popleft()
                try:
                    self._on_change(told)
                except Exception:
                    logger.exception("A listener failed at %s -> %s", told.before, told.after)
        finally:
            self._telling = False


def because(what: str, reason: str) -> str:
    """What happened, and the last failure's own words if it had any."""
    return f"{what}, the last: {reason}" if reason else what
