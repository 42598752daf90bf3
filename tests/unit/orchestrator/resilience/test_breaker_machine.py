"""The breaker against a naive model of it, under any sequence of calls, times and orders."""

import logging
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.resilience.breaker import Breaker, Permit
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState, Transition
from tests.unit.orchestrator.resilience.test_breaker import Clock

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
Change = tuple[BreakerState, BreakerState, int, bool]

RATES = st.sampled_from([None, 0.3, 0.5, 1.0])
POLICIES = st.builds(
    BreakerPolicy,
    consecutive_failures=st.none() | st.integers(1, 4),
    failure_rate=RATES,
    slow_call_rate=RATES,
    slow_call_seconds=st.just(5.0),
    window_calls=st.integers(1, 6),
    window_seconds=st.sampled_from([None, 10.0, 20.0]),
    minimum_calls=st.integers(1, 5),
    open_seconds=st.just(4.0),
    max_open_seconds=st.sampled_from([4.0, 10.0, 50.0]),
    half_open_permits=st.integers(1, 3),
    half_open_successes=st.none() | st.integers(1, 4),
    half_open_wait_seconds=st.sampled_from([3.0, 12.0]),
)


@dataclass(eq=False)
class Call:
    """A call that was admitted, and whether its end still matters."""

    permit: Permit
    counts: bool = True


@dataclass
class Model:
    """What a breaker should be, said plainly: whole seconds, one after the other, and full logs."""

    policy: BreakerPolicy
    now: int
    state: BreakerState = CLOSED
    since: int = 0
    until: int = 0
    open_for: int = 4
    row: int = 0
    judged: float = float("-inf")
    version: int | None = None
    stirred: int = 0
    calls: list[Call] = field(default_factory=list)
    log: list[tuple[int, bool, bool]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    @property
    def trials(self) -> list[Call]:
        """The calls in flight that count."""
        return [call for call in self.calls if call.counts]

    def admits(self) -> bool:
        """Whether a call may be made."""
        if self.state is HALF_OPEN:
            return len(self.trials) < self.policy.half_open_permits
        return self.state in {CLOSED, DISABLED}

    def enter(self, state: BreakerState, *, own: bool) -> None:
        """Change, or begin the same state anew."""
        for call in self.calls:
            call.counts = False
        self.log = []
        if state is CLOSED:
            self.row, self.open_for = 0, 4
        if state is not self.state:
            self.changes.append((self.state, state, self.now, own))
            self.state, self.since = state, self.now

    def open(self, seconds: int, *, own: bool = True) -> None:
        """Open for so long."""
        self.enter(OPEN, own=own)
        self.until = self.now + seconds

    def tick(self) -> None:
        """One second goes by."""
        self.now += 1
        quiet = self.now - self.stirred
        if self.state is HALF_OPEN and self.trials and quiet >= self.policy.half_open_wait_seconds:
            self.open(self.open_for)
        if self.state is OPEN and self.now >= self.until:
            self.enter(HALF_OPEN, own=True)

    def end(self, call: Call, *, failed: bool, slow: bool, ignored: bool) -> None:
        """A call ends."""
        self.calls.remove(call)
        if not call.counts or self.state is DISABLED:
            return
        self.stirred = self.now
        if ignored:
            return
        self.row = self.row + 1 if failed else 0
        self.log.append((self.now, failed, slow and self.policy.slow_call_rate is not None))
        if self.state is HALF_OPEN:
            self.judge_trials(failed=failed)
        elif self.must_open():
            self.judged = self.now
            self.open(self.open_for)

    def judge_trials(self, *, failed: bool) -> None:
        """After a trial."""
        slow = sum(entry[2] for entry in self.log) / len(self.log)
        needed = self.policy.half_open_successes or self.policy.half_open_permits
        if failed or (len(self.log) >= needed and slow >= (self.policy.slow_call_rate or 2)):
            self.judged = self.now
            self.open_for = min(self.open_for * 2, int(self.policy.max_open_seconds))
            self.open(self.open_for)
        elif len(self.log) >= needed:
            self.judged = self.now
            self.enter(CLOSED, own=True)

    def must_open(self) -> bool:
        """After a call while closed."""
        policy, needed = self.policy, self.policy.minimum_calls
        if policy.consecutive_failures and self.row >= policy.consecutive_failures:
            return True
        if policy.window_seconds:
            width = policy.window_seconds / 10
            window = [each for each in self.log if each[0] // width > self.now // width - 10]
        else:
            window = self.log[-policy.window_calls :]
            needed = min(needed, policy.window_calls)
        if len(window) < needed:
            return False
        failed = sum(entry[1] for entry in window) / len(window)
        slow = sum(entry[2] for entry in window) / len(window)
        return failed >= (policy.failure_rate or 2) or slow >= (policy.slow_call_rate or 2)

    def order(self, state: BreakerState) -> None:
        """An operator's order."""
        self.judged = self.now
        self.enter(state, own=False)

    def adopt(self, state: BreakerState, version: int, age: int, left: int) -> None:
        """Another process's record."""
        held = self.state in {FORCED_OPEN, DISABLED}
        if held or version == self.version or self.now - age <= self.judged:
            return
        self.version = version
        if state is CLOSED and self.state in {OPEN, HALF_OPEN}:
            self.judged = self.now - age
            self.enter(CLOSED, own=False)
        if state is OPEN and left > 0:
            self.judged = self.now - age
            left = min(left, int(self.policy.max_open_seconds))
            if self.state is OPEN:
                self.until = max(self.until, self.now + left)
            else:
                self.open(left, own=False)


class Comparison(RuleBasedStateMachine):
    """Does the same to a breaker and to its model."""

    @initialize(policy=POLICIES)
    def begin(self, policy: BreakerPolicy) -> None:
        """Any policy; the listener always fails, and the log need not say so."""
        logging.getLogger("orchestrator.resilience.breaker").disabled = True
        self.clock = Clock()
        self.heard: list[Change] = []
        self.breaker = Breaker(policy, self.clock, self.listen)
        self.model = Model(policy, now=1000, since=1000)
        self.used: list[Permit] = []

    def teardown(self) -> None:
        """Let the log speak again."""
        logging.getLogger("orchestrator.resilience.breaker").disabled = False

    def listen(self, told: Transition) -> None:
        """Hear of a change that is complete, and fail."""
        self.heard.append((told.before, told.after, int(told.at), told.own))
        assert told.after is self.breaker._state
        raise RuntimeError

    @rule(times=st.integers(1, 5))
    def acquire(self, times: int) -> None:
        """A permit is given exactly when the model admits the call."""
        for _ in range(times):
            promised = self.breaker.available
            permit = self.breaker.try_acquire()
            assert promised == (permit is not None)
            assert self.model.admits() == (permit is not None)
            if permit is not None:
                self.model.calls.append(Call(permit))
                self.model.stirred = self.model.now

    @rule(times=st.integers(1, 4), failed=st.booleans(), slow=st.booleans())
    def call(self, times: int, *, failed: bool, slow: bool) -> None:
        """So many calls in turn, each ending before the next."""
        for _ in range(times):
            in_flight = len(self.model.calls)
            self.acquire(1)
            if len(self.model.calls) > in_flight:
                self.end(in_flight, failed=failed, slow=slow)

    @precondition(lambda self: self.model.calls)
    @rule(which=st.integers(0, 99), failed=st.booleans(), slow=st.booleans())
    def end(self, which: int, *, failed: bool, slow: bool) -> None:
        """A call ends well or badly, perhaps late."""
        call = self.model.calls[which % len(self.model.calls)]
        before = self.told()
        counted = call.counts
        (call.permit.failure if failed else call.permit.success)(6.0 if slow else 5.0)
        self.model.end(call, failed=failed, slow=slow, ignored=False)
        self.used.append(call.permit)
        assert counted or before == self.told()

    @precondition(lambda self: self.model.calls)
    @rule(which=st.integers(0, 99))
    def ignore(self, which: int) -> None:
        """A call is cancelled."""
        call = self.model.calls[which % len(self.model.calls)]
        call.permit.ignore()
        self.model.end(call, failed=False, slow=False, ignored=True)
        self.used.append(call.permit)

    @precondition(lambda self: self.used)
    @rule(which=st.integers(0, 99), end=st.sampled_from(["success", "failure"]))
    def say_again(self, which: int, end: str) -> None:
        """What is said of a call twice changes nothing."""
        before = self.told()
        getattr(self.used[which % len(self.used)], end)(1.0)
        assert before == self.told()

    @rule(seconds=st.integers(1, 15) | st.just(200))
    def wait(self, seconds: int) -> None:
        """Time goes by, perhaps only making up for a step backwards."""
        self.clock.now += seconds
        while self.model.now < self.clock.now:
            self.model.tick()

    @rule(seconds=st.integers(1, 20))
    def turn_back(self, seconds: int) -> None:
        """The clock goes backwards."""
        self.clock.now -= seconds

    @rule(state=st.sampled_from([CLOSED, CLOSED, FORCED_OPEN, DISABLED]))
    def order(self, state: BreakerState) -> None:
        """An operator orders a state."""
        say = {
            CLOSED: self.breaker.reset,
            FORCED_OPEN: self.breaker.force_open,
            DISABLED: self.breaker.disable,
        }
        say[state]("ordered")
        self.model.order(state)

    @rule(
        state=st.sampled_from(BreakerState),
        version=st.integers(1, 4),
        age=st.integers(0, 30),
        left=st.integers(-5, 60),
    )
    def adopt(self, state: BreakerState, version: int, age: int, left: int) -> None:
        """Another process's record is merged."""
        self.breaker.adopt(state, version=version, age_seconds=age, remaining_seconds=left)
        self.model.adopt(state, version, age, left)

    def told(self) -> tuple[object, ...]:
        """Everything that the breaker tells."""
        breaker = self.breaker
        return (
            breaker.state,
            breaker.available,
            breaker.retry_at,
            breaker.since,
            breaker.failures,
            breaker._in_flight,
        )

    @invariant()
    def it_is_what_the_model_is(self) -> None:
        """Whatever happened."""
        model = self.model
        expected = (
            model.state,
            model.admits(),
            model.until if model.state is OPEN else None,
            model.since,
            model.row,
            len(model.trials) if model.state is HALF_OPEN else 0,
        )
        assert expected == self.told()
        assert model.changes == self.heard

    @invariant()
    def what_was_promised_holds(self) -> None:
        """The promises of each state, whatever the model says."""
        breaker, policy = self.breaker, self.breaker.policy
        assert 0 <= breaker._in_flight <= policy.half_open_permits
        assert policy.open_seconds <= breaker._open_for <= policy.max_open_seconds
        if breaker.state in {CLOSED, DISABLED}:
            assert breaker.available
        if breaker.state in {OPEN, FORCED_OPEN}:
            assert not breaker.available
        if breaker.state is OPEN:
            assert breaker.retry_at is not None
            assert breaker._now < breaker.retry_at <= breaker._now + policy.max_open_seconds


TestComparison = Comparison.TestCase
TestComparison.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
