"""The fleet under any course of events."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator.errors import OrderRefused
from orchestrator.fleet.records import AgentRecord, HealthState, LimitOrder
from orchestrator.fleet.state import EVENTS_KEPT, FleetState
from orchestrator.resilience.breaker_policy import BreakerState
from tests.unit.orchestrator.fleet.stage import NOW, change, config, health, order, report

URLS = st.sampled_from([f"http://{name}" for name in "abcde"])
ORDERS = st.sampled_from(["drain", "resume", "trip", "reset", "disable_breaker"])


class AnyCourse(RuleBasedStateMachine):
    """Everything that can happen to an agent, in any order, at any pace."""

    def __init__(self) -> None:
        super().__init__()
        self.state = FleetState()
        self.now: datetime = NOW
        self.configured: set[str] = set()
        self.away: set[str] = set()

    def become(self, after: FleetState) -> None:
        """A change counts the version up, and nothing else does."""
        before, self.state = self.state, after
        if after is before:
            return
        assert before.version < after.version

    @property
    def reader(self) -> AgentRecord:
        """The agent."""
        return self.state.agents.get("reader", AgentRecord())

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += timedelta(seconds=seconds)

    @rule(urls=st.lists(URLS, unique=True, max_size=4), weight=st.integers(1, 3))
    def configure(self, urls: list[str], weight: int) -> None:
        """Another configuration."""
        self.configured = set(urls)
        self.away &= self.configured
        self.become(self.state.configure(config(*urls, weight=weight), self.now))

    @rule(url=URLS, weight=st.none() | st.integers(1, 3))
    def add(self, url: str, weight: int | None) -> None:
        """An instance is added."""
        if "reader" in self.state.agents:
            self.away.discard(url)
            self.become(self.state.add_instance(change(url, weight=weight), self.now))
            assert url in {each.url for each in self.reader.instances}

    @rule(url=URLS)
    def remove(self, url: str) -> None:
        """An instance is removed, unless it is the last or not there."""
        known = {each.url for each in self.reader.instances}
        try:
            self.become(self.state.remove_instance(change(url), self.now))
        except OrderRefused:
            assert known == {url} or url not in known
        else:
            self.away |= {url} & self.configured

    @rule(name=ORDERS, url=st.none() | URLS)
    def steer(self, name: str, url: str | None) -> None:
        """An operator's order, about one or all."""
        known = {each.url for each in self.reader.instances}
        try:
            self.become(getattr(self.state, name)(order(url), self.now))
        except OrderRefused:
            assert "reader" not in self.state.agents or url not in known

    @rule(rate=st.none() | st.integers(1, 3), clear=st.booleans())
    def limit(self, rate: int | None, clear: bool) -> None:  # noqa: FBT001
        """A limit is set or taken back."""
        try:
            wanted = LimitOrder(agent="reader", rate=rate, clear=clear)
            self.become(self.state.set_limit(wanted, self.now))
        except OrderRefused:
            assert "reader" not in self.state.agents or (rate is None and not clear)

    @rule(
        url=URLS, state=st.sampled_from(BreakerState), age=st.floats(0, 50), left=st.floats(0, 50)
    )
    def tell(self, url: str, state: BreakerState, age: float, left: float) -> None:
        """A process reports."""
        told = report(state, url, age_seconds=age, remaining_seconds=left)
        self.become(self.state.report(told, self.now))

    @rule(url=URLS, state=st.sampled_from(HealthState))
    def check(self, url: str, state: HealthState) -> None:
        """A check has an outcome."""
        self.become(self.state.check(health(state, url), self.now))

    @invariant()
    def no_instance_is_there_twice(self) -> None:
        """Nor is one both there and taken away."""
        urls = [each.url for each in self.reader.instances]
        assert len(set(urls)) == len(urls)
        assert not set(urls) & set(self.reader.removed)

    @invariant()
    def what_is_configured_is_there_unless_it_was_removed(self) -> None:
        """And the added ones are those that are not configured."""
        urls = {each.url for each in self.reader.instances}
        assert self.configured - urls == self.away == set(self.reader.removed)
        assert urls - self.configured == {each.url for each in self.reader.instances if each.added}

    @invariant()
    def events_are_bounded_and_in_order(self) -> None:
        """By their times."""
        times = [each.at for each in self.state.events]
        assert len(times) <= EVENTS_KEPT
        assert sorted(times) == times

    @invariant()
    def versions_of_parts_are_of_the_past(self) -> None:
        """Each is that of the change that made it."""
        for each in self.reader.instances:
            parts: list[Any] = [each.breaker, each.order]
            assert all(part is None or part.version <= self.state.version for part in parts)

    @invariant()
    def it_survives_its_journey(self) -> None:
        """As JSON."""
        text = self.state.model_dump_json(exclude_unset=True)
        assert self.state == FleetState.model_validate_json(text)


AnyCourse.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestAnyCourse = AnyCourse.TestCase
