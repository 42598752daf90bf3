"""What of a batch waits for one agent, and how much of it is under way.

Each agent has a lane of its own, so that one that is slow, shut or metered holds up no other.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterable

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.chunk_course import BEGIN_SECONDS
    from orchestrator.batches import BatchPlan, Unfinished
    from orchestrator.models import Plan
    from orchestrator.resilience.limiter import SECONDS_A_MINUTE

CHUNK_ITEMS = 200
CHUNKS_OF_AGENT = 8
"""As many as a few workers can use, while the history stays small."""
SINGLES_OF_AGENT = 250
"""Items that are tasks of their own."""
LATE_OF_AGENT = 300
"""With so many late answers to wait for, no further chunk is begun: each is an open workflow."""


class Lane:
    """The positions that wait for an agent: by plan, the most urgent plan first, or alone."""

    def __init__(self) -> None:
        self.chunks = 0
        self.singles = 0
        self.alone: deque[int] = deque()
        self.unfinished: deque[tuple[Plan, Unfinished]] = deque()
        """Those that a chunk has begun, and that are to go on alone."""
        self.late: deque[tuple[Plan, Unfinished]] = deque()
        """Those whose call the agent took, and that are yet to wait for its answer."""
        self.late_singles = 0
        self._waiting: dict[int, deque[int]] = {}
        self._urgency: list[tuple[int, int]] = []

    def wait(self, chosen: int, priority: int, positions: Iterable[int], *, first: bool) -> None:
        """Have positions of a plan wait behind its others, or before them."""
        if chosen not in self._waiting:
            self._waiting[chosen] = deque()
            heapq.heappush(self._urgency, (-priority, chosen))
        if first:
            self._waiting[chosen].extendleft(reversed(tuple(positions)))
        else:
            self._waiting[chosen].extend(positions)

    def most_urgent(self) -> tuple[int, deque[int]] | None:
        """The plan that goes next, and what waits by it."""
        while self._urgency:
            chosen = self._urgency[0][1]
            if self._waiting[chosen]:
                return chosen, self._waiting[chosen]
            heapq.heappop(self._urgency)
            del self._waiting[chosen]
        return None

    def may_begin_chunk(self, entry: BatchPlan) -> bool:
        """Whether one more chunk may be under way; what must go on alone goes first."""
        if self.late or self.late_singles >= LATE_OF_AGENT:
            return False
        return not self.unfinished and self.chunks < most_chunks(entry)

    def may_begin_single(self) -> bool:
        """Whether one more item may be a task of its own."""
        return bool(self.unfinished or self.alone) and self.singles < SINGLES_OF_AGENT


def most_items(entry: BatchPlan) -> int:
    """How many items a chunk of the plan may have: a metered agent's no more than it begins."""
    return max(1, math.ceil(min(CHUNK_ITEMS, _in_time(entry))))


def most_chunks(entry: BatchPlan) -> int:
    """How many chunks of the plan's agent may be under way."""
    return max(1, math.floor(min(CHUNKS_OF_AGENT, _in_time(entry) / CHUNK_ITEMS)))


def _in_time(entry: BatchPlan) -> float:
    """How many calls the agent takes while a chunk begins calls."""
    return math.inf if entry.pace is None else entry.pace / SECONDS_A_MINUTE * BEGIN_SECONDS
