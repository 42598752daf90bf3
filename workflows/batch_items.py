"""The items of a batch in its workflow: which wait, which are under way, how many have ended.

Plain bookkeeping, deterministic, and small: of each item only its text is kept, until it has ended.
"""

import json
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from orchestrator.batches import Batch, BatchPlan, BatchTally, ItemOutcome, Unfinished
    from orchestrator.callbacks import ItemEnd
    from orchestrator.models import Begun, Plan, Task, TaskState
    from orchestrator.routing import led_by
    from workflows.batch_lanes import Lane, most_items

CHUNK_BYTES = 1_000_000
CHUNKS_AT_ONCE = 8
"""Of all agents; one of each may be under way beside them, as far as MOST_CHUNKS."""
MOST_CHUNKS = 32
TOLD_TOGETHER = 200
"""Callbacks that one activity starts."""
_CALLED_BACK = '"callback_url":"'
"""In the text of an item, whose JSON has no spaces."""
MOST_SINGLES = 1000
"""Items that are tasks of their own, beside those that wait for late answers."""
MOST_CHILDREN = 1950
"""The engine holds 2,000 open children of a workflow."""


@dataclass(frozen=True)
class Ended:
    """An item that has ended; ``outcome`` says more where its chunk has told of it."""

    position: int
    text: str
    entry: BatchPlan
    state: TaskState
    outcome: ItemOutcome | None


class Items:
    """The items of one part of a batch."""

    def __init__(self, batch: Batch, batch_id: str, created_at: datetime) -> None:
        self.tally = batch.tally or BatchTally(total=len(batch.items))
        self._batch = _without_items(batch, batch_id, created_at)
        self._batch_id = batch_id
        self._created_at = created_at
        positions = batch.positions or range(batch.first, batch.first + len(batch.items))
        self._open: dict[int, str] = dict(zip(positions, batch.items, strict=True))
        """Their requests, as JSON."""
        # By position; two bytes for each rather than an object.
        self._chosen = array("H", bytes(2 * (max(self._open, default=0) + 1)))
        for position, chosen in zip(self._open, batch.chosen, strict=True):
            self._chosen[position] = chosen
        self.ended: list[Ended] = []
        """Those that have ended since somebody took them from here, if the broker is told."""
        self._lanes: dict[str, Lane] = {}
        self._under_way = {each.position for each in batch.unfinished}
        self._unwanted: set[int] = set()
        self._to_tell: deque[ItemEnd] = deque()
        """Those that have ended, and whose receiver has not been told."""
        self._singles: dict[int, Lane] = {}
        self._late: dict[int, Lane] = {}
        """Those tasks of their own that wait for late answers."""
        self._sort_in(batch.unfinished)

    def _sort_in(self, unfinished: Iterable[Unfinished]) -> None:
        """Have each go on where it was, or wait for its agent."""
        for each in unfinished:
            chosen = self._chosen[each.position]
            self.go_on(chosen, self._plans[chosen].plan, each)
        for position in self._open:
            if position in self._under_way:
                continue
            chosen = self._chosen[position]
            if self._plans[chosen].alone:
                self._lane(chosen).alone.append(position)
            else:
                self._wait(chosen, (position,), first=False)

    def _lane(self, chosen: int) -> Lane:
        return self._lanes.setdefault(self._plans[chosen].plan.agent, Lane())

    def _wait(self, chosen: int, positions: Iterable[int], *, first: bool) -> None:
        priority = self._plans[chosen].plan.priority
        self._lane(chosen).wait(chosen, priority, positions, first=first)

    @property
    def _plans(self) -> tuple[BatchPlan, ...]:
        return self._batch.plans

    @property
    def are_left(self) -> bool:
        """Whether some have not ended."""
        return bool(self._open)

    def drop_unwanted(self) -> None:
        """Nothing is under way any more: what was cancelled meanwhile is not begun again."""
        for position in tuple(self._unwanted):
            self.end(position, TaskState.CANCELLED)

    def rest(self) -> Batch:
        """What is left, for a new run to go on with."""
        rest = sorted(self._open)
        plans = list(self._plans)
        chosen = {position: self._chosen[position] for position in rest}
        going_on = [
            (plan, each)
            for lane in self._lanes.values()
            for plan, each in (*lane.late, *lane.unfinished)
            if each.position in self._open
        ]
        for plan, each in going_on:
            # It goes on at the agent that has tried it, which may be a fallback.
            entry = plans[chosen[each.position]].model_copy(update={"plan": plan})
            if entry not in plans:
                plans.append(entry)
            chosen[each.position] = plans.index(entry)
        return self._batch.model_copy(
            update={
                "plans": tuple(plans),
                "items": tuple(self._open[position] for position in rest),
                "chosen": tuple(chosen.values()),
                "positions": tuple(rest),
                "unfinished": tuple(_outlined(each) for _, each in going_on),
                "tally": self.tally,
            }
        )

    @property
    def singles(self) -> int:
        """How many are tasks of their own now."""
        return len(self._singles) + len(self._late)

    def next_alone(self) -> tuple[Plan, int, Begun | None] | None:
        """Take the next item that is to be a task of its own; those that were begun go first."""
        if self.singles >= MOST_CHILDREN:
            return None
        if late := self._next_late():
            return late
        if len(self._singles) >= MOST_SINGLES:
            return None
        for lane in sorted(self._lanes.values(), key=lambda lane: lane.singles):
            while lane.may_begin_single():
                plan, position, begun = self._next_single(lane)
                if self._take(position):
                    lane.singles += 1
                    self._singles[position] = lane
                    return plan or self._plans[self._chosen[position]].plan, position, begun
        return None

    def _next_late(self) -> tuple[Plan, int, Begun] | None:
        for lane in self._lanes.values():
            while lane.late:
                plan, each = lane.late.popleft()
                if self._take(each.position):
                    lane.late_singles += 1
                    self._late[each.position] = lane
                    return plan, each.position, _begun(each)
        return None

    @staticmethod
    def _next_single(lane: Lane) -> tuple[Plan | None, int, Begun | None]:
        if lane.unfinished:
            plan, each = lane.unfinished.popleft()
            return plan, each.position, _begun(each)
        return None, lane.alone.popleft(), None

    def next_chunk(self) -> tuple[int, BatchPlan, tuple[int, ...]] | None:
        """Take the next items that go together: the number of their plan, it, and positions.

        The agent with the fewest chunks under way comes first; of an agent the most urgent plan.
        """
        total = sum(lane.chunks for lane in self._lanes.values())
        for lane in sorted(self._lanes.values(), key=lambda lane: lane.chunks):
            if total >= (MOST_CHUNKS if lane.chunks == 0 else CHUNKS_AT_ONCE):
                return None
            while (found := lane.most_urgent()) and lane.may_begin_chunk(self._plans[found[0]]):
                chosen, waiting = found
                if taken := self._some(waiting, most_items(self._plans[chosen])):
                    lane.chunks += 1
                    return chosen, self._plans[chosen], taken
        return None

    def chunk_ended(self, chosen: int) -> None:
        """One that was taken by ``next_chunk`` is no more under way."""
        self._lane(chosen).chunks -= 1

    def _some(self, waiting: deque[int], most: int) -> tuple[int, ...]:
        taken: list[int] = []
        size = 0
        while waiting and len(taken) < most:
            size += len(self.text(waiting[0])) if waiting[0] in self._open else 0
            if taken and size > CHUNK_BYTES:
                break
            position = waiting.popleft()
            if self._take(position):
                taken.append(position)
        return tuple(taken)

    def _take(self, position: int) -> bool:
        """Whether the item is still wanted, and now under way."""
        if position in self._unwanted:
            self.end(position, TaskState.CANCELLED)
        if position not in self._open:
            return False
        self._under_way.add(position)
        return True

    def give_back(self, chosen: int, positions: Iterable[int]) -> None:
        """Items of a chunk that were not begun wait again, before the others."""
        left = []
        for position in positions:
            self._under_way.discard(position)
            if position in self._unwanted:
                self.end(position, TaskState.CANCELLED)
            elif position in self._open:
                left.append(position)
        self._wait(chosen, left, first=True)

    def go_on(self, chosen: int, plan: Plan, unfinished: Unfinished) -> None:
        """An item of a chunk is to go on alone, at the agent that was asked, be it a fallback."""
        lane = self._lane(chosen)
        (lane.late if unfinished.accepted else lane.unfinished).append((plan, unfinished))

    def end(self, position: int, state: TaskState, outcome: ItemOutcome | None = None) -> bool:
        """The item has ended; False if it had before."""
        lane = self._singles.pop(position, None)
        if lane:
            lane.singles -= 1
        elif lane := self._late.pop(position, None):
            lane.late_singles -= 1
        text = self._open.pop(position, None)
        if text is None:
            return False
        # A task of its own tells by itself, unless it was cancelled before it was one.
        if _CALLED_BACK in text and (lane is None or state is TaskState.CANCELLED):
            self._tell_later(position, state, text)
        entry = self._plans[self._chosen[position]]
        # A task of its own tells of its end by itself.
        if entry.plan.events and not lane:
            self.ended.append(Ended(position, text, entry, state, outcome))
        self._under_way.discard(position)
        self._unwanted.discard(position)
        ended = {state.value: getattr(self.tally, state.value) + 1}
        self.tally = self.tally.model_copy(update=ended)
        return True

    def _tell_later(self, position: int, state: TaskState, text: str) -> None:
        # A payload may have such a field as well.
        if url := json.loads(text).get("callback_url"):
            self._to_tell.append(ItemEnd(position=position, state=state, url=url))

    @property
    def are_to_be_told(self) -> bool:
        """Whether some have ended of which receivers or the broker have not been told."""
        return bool(self.ended or self._to_tell)

    def next_callbacks(self) -> tuple[ItemEnd, ...]:
        """Take the ends that receivers are to be told of next."""
        return tuple(self._to_tell.popleft() for _ in range(min(TOLD_TOGETHER, len(self._to_tell))))

    def tell_again(self, ends: Iterable[ItemEnd]) -> None:
        """Ends of which it is not known whether their receivers are being told."""
        self._to_tell.extendleft(ends)

    def unwanted_among(self, positions: Iterable[int]) -> tuple[int, ...]:
        """Those of the items under way that are cancelled."""
        return tuple(position for position in positions if position in self._unwanted)

    def cancel(self, positions: Iterable[int]) -> None:
        """End those that are not under way; the others once what has them in hand says so."""
        for position in positions:
            if position in self._under_way:
                self._unwanted.add(position)
            else:
                self.end(position, TaskState.CANCELLED)

    def cancel_all(self) -> None:
        """End all that have not ended."""
        for position in list(self._open):
            self.end(position, TaskState.CANCELLED)

    @property
    def waiting(self) -> Iterator[tuple[int, str, BatchPlan]]:
        """Those that have not ended: position, request as JSON, and plan."""
        for position, text in self._open.items():
            yield position, text, self._plans[self._chosen[position]]

    def text(self, position: int) -> str:
        """The item's request as JSON."""
        return self._open[position]

    def is_open(self, position: int) -> bool:
        """Whether the item has not ended."""
        return position in self._open

    def plan_of(self, position: int, agent: str) -> Plan | None:
        """The item's plan, led by that agent; None where it is none of the plan's."""
        plan = self._plans[self._chosen[position]].plan
        agents = [route.agent for route in plan.routes]
        return led_by(plan, agents.index(agent)) if agent in agents else None

    def task(self, plan: Plan, position: int, now: datetime, begun: Begun | None = None) -> Task:
        """The item as a task of its own."""
        further: dict[str, Any] = {"plan": plan, "batch": self._batch_id}
        if self._plans[self._chosen[position]].strict:
            further["waited"] = max(0, (now - self._created_at).total_seconds())
        if self._batch.traceparent:
            further["traceparent"] = self._batch.traceparent
        if begun:
            further["begun"] = begun
        return Task.model_validate_json(self.text(position)).model_copy(update=further)


def _without_items(batch: Batch, batch_id: str, created_at: datetime) -> Batch:
    """What the items have in common; their texts are kept only as long as each needs its own."""
    return batch.model_copy(
        update={
            "items": (),
            "chosen": (),
            "positions": None,
            "tasks": None,
            "unfinished": (),
            "batch_id": batch_id,
            "created_at": created_at,
        }
    )


def _begun(unfinished: Unfinished) -> Begun:
    further = {"accepted": unfinished.accepted} if unfinished.accepted else {}
    return Begun(progress=unfinished.progress, pause=unfinished.pause, **further)


def _outlined(unfinished: Unfinished) -> Unfinished:
    """Without what its attempts said: all that is left has to fit into one input."""
    progress = unfinished.progress.model_copy(update={"attempts": ()})
    return unfinished.model_copy(update={"progress": progress})
