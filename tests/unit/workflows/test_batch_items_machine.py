"""The items of a batch under any course of events: each ends once, and none is under way twice."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.batches import Batch, BatchPlan, BatchTally
from orchestrator.models import TaskState
from tests.support.plans import plan
from tests.unit.workflows.items import alone, batch, items_of, unfinished

ENDS = (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED)


class AnyCourse(RuleBasedStateMachine):
    """A batch under any outcomes, cancellations and new runs, against a naive model."""

    @initialize(chosen=st.lists(st.integers(0, 2), min_size=1, max_size=30))
    def begin(self, chosen: list[int]) -> None:
        """Two plans that go by chunks, and one whose items go alone."""
        plans = (BatchPlan(plan=plan()), BatchPlan(plan=plan(priority=5)), alone())
        self.chosen = chosen
        self.items = items_of(batch(*chosen, plans=plans))
        self.ends: dict[int, TaskState] = {}
        self.chunks: list[tuple[int, list[int]]] = []
        self.alone: list[int] = []
        self.going_on: list[int] = []
        self.unwanted: set[int] = set()

    @property
    def under_way(self) -> set[int]:
        """Where the model says they are."""
        in_chunks = {position for _, positions in self.chunks for position in positions}
        return in_chunks | set(self.alone) | set(self.going_on)

    def end(self, position: int, state: TaskState) -> None:
        """The model's word for it."""
        assert position not in self.ends
        self.ends[position] = state

    @rule()
    def take_chunk(self) -> None:
        """Whatever is taken was not under way, has not ended, and nobody has cancelled it."""
        if found := self.items.next_chunk():
            chosen, _, positions = found
            assert positions
            assert {chosen} == {self.chosen[each] for each in positions} - {2}
            assert not self.under_way & set(positions)
            assert not self.ends.keys() & set(positions)
            self.chunks.append((chosen, list(positions)))

    @rule()
    def take_alone(self) -> None:
        """Those that were begun go first, but for those that are not wanted any more."""
        expected = self.next_going_on()
        found = self.items.next_alone()
        if found is None:
            assert expected is None
            return
        _, position, begun = found
        assert position not in self.ends
        assert position not in self.under_way
        assert (expected is not None) == (begun is not None)
        assert expected in {None, position}
        self.alone.append(position)

    def next_going_on(self) -> int | None:
        """The next that was begun and is still wanted."""
        while self.going_on:
            position = self.going_on.pop(0)
            if position not in self.unwanted:
                return position
            self.end(position, TaskState.CANCELLED)
        return None

    @precondition(lambda self: self.chunks)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        """A chunk ends: some of it completed, some failed, some left, some to go on."""
        chosen, positions = self.chunks.pop(data.draw(st.integers(0, len(self.chunks) - 1)))
        fate = st.sampled_from([*ENDS, "left", "on"])
        fates = data.draw(st.lists(fate, min_size=len(positions), max_size=len(positions)))
        told = dict(zip(positions, fates, strict=True))
        left = [position for position, what in told.items() if what == "left"]
        self.items.chunk_ended(chosen)
        self.items.give_back(chosen, left)
        for position, what in told.items():
            if what == "left" and position in self.unwanted:
                self.end(position, TaskState.CANCELLED)
            elif what == "on":
                self.items.go_on(chosen, plan(), unfinished(position))
                self.going_on.append(position)
            elif isinstance(what, TaskState):
                assert self.items.end(position, what)
                self.end(position, what)

    @precondition(lambda self: self.alone)
    @rule(data=st.data(), state=st.sampled_from(ENDS))
    def end_alone(self, data: st.DataObject, state: TaskState) -> None:
        """A task of its own ends."""
        position = self.alone.pop(data.draw(st.integers(0, len(self.alone) - 1)))
        assert self.items.end(position, state)
        self.end(position, state)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Some are not wanted any more, be they known or not."""
        positions = data.draw(st.lists(st.integers(0, len(self.chosen) + 1), max_size=5))
        self.items.cancel(positions)
        for position in set(positions):
            if position in self.under_way:
                self.unwanted.add(position)
            elif position < len(self.chosen) and position not in self.ends:
                self.end(position, TaskState.CANCELLED)

    @precondition(lambda self: not self.chunks and not self.alone)
    @rule()
    def carry_on(self) -> None:
        """A new run begins with what is left."""
        self.items.drop_unwanted()
        rest = self.items.rest()
        for position in set(self.going_on) & self.unwanted:
            self.end(position, TaskState.CANCELLED)
        self.going_on = [each for each in self.going_on if each not in self.unwanted]
        self.items = items_of(Batch.model_validate_json(rest.model_dump_json()))
        assert tuple(sorted(set(range(len(self.chosen))) - self.ends.keys())) == rest.positions

    @rule(item=st.integers(0, 40))
    def end_again(self, item: int) -> None:
        """A second word about one that has ended is passed over."""
        if item in self.ends or item >= len(self.chosen):
            assert not self.items.end(item, TaskState.FAILED)

    @invariant()
    def counts(self) -> None:
        """Every end is counted, once."""
        if not hasattr(self, "items"):
            return
        ends = list(self.ends.values())
        assert (
            BatchTally(total=len(self.chosen), **{each.value: ends.count(each) for each in ENDS})
            == self.items.tally
        )
        assert (len(ends) < len(self.chosen)) == self.items.are_left

    def teardown(self) -> None:
        """Left to itself, the batch goes on to its end."""
        if not hasattr(self, "items"):
            return
        while self.chunks or self.alone:
            for chosen, positions in self.chunks:
                self.items.chunk_ended(chosen)
                self.items.give_back(chosen, positions)
            for position in self.alone:
                self.items.end(position, TaskState.COMPLETED)
            self.chunks, self.alone = [], []
        more = True
        while more:
            more = False
            while one := self.items.next_alone():
                assert self.items.end(one[1], TaskState.COMPLETED)
            while found := self.items.next_chunk():
                more = True
                for position in found[2]:
                    assert self.items.end(position, TaskState.COMPLETED)
                self.items.chunk_ended(found[0])
        assert not self.items.are_left
        assert 0 == self.items.tally.pending


AnyCourse.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestAnyCourse = AnyCourse.TestCase
