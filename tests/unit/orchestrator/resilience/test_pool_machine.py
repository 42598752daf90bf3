"""What a pool promises, under any sequence of calls, times, orders and the fleet's word."""

from contextlib import ExitStack

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.call_errors import AgentFailed, AgentUnreachable, CallError
from orchestrator.errors import AgentUnavailable
from orchestrator.fleet.records import HealthState
from orchestrator.resilience.balancer import STRATEGIES
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState
from orchestrator.resilience.member import Member, PoolPolicy
from orchestrator.resilience.pool import Lease, Pool
from tests.unit.orchestrator.resilience.pools import (
    NOW,
    READER,
    A,
    B,
    C,
    Clock,
    instance,
    order,
    record,
)

URLS = (A, B, C)
POLICIES = st.builds(
    PoolPolicy,
    breaker=st.builds(
        BreakerPolicy,
        consecutive_failures=st.integers(1, 3),
        open_seconds=st.just(4.0),
        max_open_seconds=st.just(10.0),
        half_open_permits=st.integers(1, 3),
        half_open_wait_seconds=st.sampled_from([3.0, 50.0]),
    ),
    max_connections=st.integers(1, 6),
    panic_threshold=st.sampled_from([0.0, 0.5, 1.0]),
    slow_start_seconds=st.sampled_from([0.0, 5.0]),
)
INSTANCES = st.builds(
    instance,
    st.sampled_from(URLS),
    weight=st.integers(1, 5),
    draining=st.booleans(),
    health=st.sampled_from(HealthState),
    order=st.none()
    | st.builds(
        order,
        st.sampled_from([BreakerState.CLOSED, BreakerState.FORCED_OPEN, BreakerState.DISABLED]),
        st.integers(1, 3),
    ),
)
ENDS = st.sampled_from(
    [None, AgentFailed("500"), CallError("422"), ValueError(), KeyboardInterrupt()]
)


class Call:
    """A call in flight, and what was true when it began."""

    def __init__(self, chosen: Pool, endpoint: str, tried: tuple[str, ...]) -> None:
        self.stack = ExitStack()
        self.lease: Lease = self.stack.enter_context(chosen.lease(endpoint, tried))
        self.member: Member = chosen._named_by(self.lease.instance)
        self.generation = self.member.breaker._generation


class Promises(RuleBasedStateMachine):
    """A pool in use."""

    @initialize(policy=POLICIES, strategy=st.sampled_from(sorted(STRATEGIES)))
    def start(self, policy: PoolPolicy, strategy: str) -> None:
        """A pool of two, of the three instances that there may be."""
        self.clock = Clock()
        self.pool = Pool(READER, [(A, 1), (B, 2)], STRATEGIES[strategy](), policy, self.clock)
        self.calls: list[Call] = []
        self.told = 0
        self.pool.watch(self.count)

    def count(self) -> None:
        """Hear that the capacity may be another."""
        self.told += 1

    @rule(
        endpoint=st.sampled_from(["/x", "/x", "/x", f"{A}/x", "http://z:1/x"]),
        tried=st.sets(st.sampled_from(URLS)),
    )
    def begin(self, endpoint: str, tried: set[str]) -> None:
        """A call is made if one may be, by an instance that may be called."""
        pool = self.pool
        refused, limit, before = pool.unavailability(), pool.max_connections, len(self.calls)
        usable = {each.url for each in pool.instances if not each.draining and not each.is_shut}
        able = {each.url for each in pool._candidates() if each.has_room(limit)}
        try:
            call = Call(pool, endpoint, tuple(tried))
        except AgentUnreachable:
            assert not pool.instances
            return
        except AgentUnavailable:
            # Where there is room, a call that may go anywhere is made.
            assert endpoint != "/x" or not able or before >= limit
            return
        self.calls.append(call)
        if endpoint == "/x":
            assert refused is None
            assert call.lease.instance in usable
            assert before < limit
            assert call.lease.instance not in tried or able <= tried
            assert call.lease.url == call.lease.instance + "/x"
        else:
            assert call.lease.url == endpoint

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99), end=ENDS)
    def end(self, which: int, end: BaseException | None) -> None:
        """A call ends, however: it counts no more, and whoever waits is told."""
        call = self.calls.pop(which % len(self.calls))
        active, told = call.member.active, self.told
        if end is None:
            call.stack.close()
        else:
            assert not call.stack.__exit__(type(end), end, None)
        assert active - 1 == call.member.active
        assert self.told > told

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 60.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.now += seconds

    @rule(
        instances=st.lists(INSTANCES, max_size=3, unique_by=lambda each: each.url),
        most=st.none() | st.integers(1, 6),
    )
    def sync(self, instances: list[object], most: int | None) -> None:
        """The fleet's word comes."""
        self.pool.sync(record(*instances, max_connections=most), NOW)  # type: ignore[arg-type]

    @invariant()
    def every_lease_is_counted_until_it_ends(self) -> None:
        """By the instance and by the agent, whatever became of either since."""
        assert len(self.calls) == self.pool._active
        for each in (*self.pool.instances, *self.pool._strangers.values()):
            assert each.active == sum(call.member is each for call in self.calls)

    @invariant()
    def permits_are_never_exceeded(self) -> None:
        """Of a half-open instance's present generation."""
        for each in self.pool.instances:
            if each.breaker.state is BreakerState.HALF_OPEN:
                trials = [
                    call
                    for call in self.calls
                    if call.member is each and call.generation == each.breaker._generation
                ]
                assert len(trials) <= self.pool.policy.breaker.half_open_permits

    @invariant()
    def the_capacity_is_within_bounds(self) -> None:
        """And there is none exactly where no call may be made."""
        capacity = self.pool.capacity()
        assert 0 <= capacity <= self.pool.max_connections
        refused = self.pool.unavailability()
        assert (capacity == 0) is (refused is not None)
        assert refused is None or refused.retry_after is None or refused.retry_after > 0
        assert 0 < self.pool.next_look() <= 1.0


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
