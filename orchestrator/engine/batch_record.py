"""What one run of a batch's workflow has recorded of its items."""

from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.batches import Batch, BatchPlan, ChunkReport, ItemOutcome
from orchestrator.models import Task, TaskRequest, TaskState


@dataclass(frozen=True, slots=True)
class Recorded:
    """How an item ended: ``outcome`` is an ItemOutcome as JSON."""

    agent: str
    state: TaskState
    dead_letter: bool
    outcome: bytes

    @classmethod
    def of(cls, agent: str, outcome: ItemOutcome) -> "Recorded":
        """The outcome, written down."""
        text = outcome.__pydantic_serializer__.to_json(outcome, exclude_unset=True)
        return cls(agent, outcome.state, outcome.dead_letter, text)

    def read(self) -> ItemOutcome:
        """The outcome again."""
        return ItemOutcome.model_validate_json(self.outcome)


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A chunk that was asked for, by the event of that number."""

    activity_id: str
    event_id: int
    positions: frozenset[int]


@dataclass
class RunRecord:
    """What one run has recorded.

    Args:
        known: the number of the last event that was read.
        before: the run that this one carries on.
        closed: it has its last event.
        batch: what it was started with.
        outcomes: of the items that have ended.
        own: items that became tasks of their own.
        begun: items that were tried and are to become such.
        cancelled: items that a cancellation met, and when.
        chunks: what is under way, by the event that scheduled it: activity id and positions.
        asking: activity ids of chunks that begin nothing before they have asked what is cancelled.
        size: about how many bytes this takes.
    """

    known: int = 0
    before: str = ""
    closed: bool = False
    batch: Batch = field(default_factory=Batch)
    outcomes: dict[int, Recorded] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)
    begun: set[int] = field(default_factory=set)
    cancelled: dict[int, datetime] = field(default_factory=dict)
    chunks: dict[int, ChunkRecord] = field(default_factory=dict)
    asking: set[str] = field(default_factory=set)
    size: int = 0
    token: bytes = b""
    """Where to go on following it."""
    _index: dict[int, int] | None = None

    @property
    def total(self) -> int:
        """How many items it was started with."""
        return len(self.batch.items) or len(self.batch.tasks or ())

    @property
    def settled(self) -> set[int]:
        """The items that it has a last word on."""
        return self.outcomes.keys() | self.own | self.cancelled.keys()

    def __contains__(self, position: int) -> bool:
        """Whether the item was handed to this run: it had not ended in an earlier one."""
        return self._place(position) is not None

    def tells_of(self, position: int) -> bool:
        """Whether it has a last word on the item."""
        return position in self.outcomes or position in self.own or position in self.cancelled

    def item(self, position: int) -> tuple[TaskRequest, BatchPlan | None]:
        """An item that was handed to this run; its plan, unless it is resolved by the run."""
        place, batch = self._place(position), self.batch
        assert place is not None  # noqa: S101 - the caller has asked
        if batch.tasks:
            return batch.tasks[place], None
        plan = batch.plans[batch.chosen[place]]
        return Task.model_validate_json(batch.items[place]), plan

    def chunk_of(self, position: int) -> ChunkRecord | None:
        """The chunk that has the item in hand."""
        return next((each for each in self.chunks.values() if position in each.positions), None)

    def _place(self, position: int) -> int | None:
        if self.batch.positions is None:
            place = position - self.batch.first
            return place if 0 <= place < self.total else None
        if self._index is None:
            self._index = {each: place for place, each in enumerate(self.batch.positions)}
        return self._index.get(position)


def outcomes_of(report: ChunkReport) -> dict[int, Recorded]:
    """The outcomes that a chunk has told of, by position."""
    return {each.position: Recorded.of(report.agent, each) for each in report.outcomes}
