"""The items of a batch in its workflow: which wait, which are under way, how many have ended.

Plain bookkeeping, deterministic, and small: of each item only its text is kept, until it has ended.
"""

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from orchestrator.batches import Batch, BatchPlan, BatchTally, Unfinished
    from orchestrator.models import Begun, Plan, Task, TaskState

CHUNK_ITEMS = 200
CHUNK_BYTES = 1_000_000


class Items:
    """The items of one part of a batch."""

    def __init__(self, batch: Batch, batch_id: str, created_at: datetime) -> None:
        self.tally = batch.tally or BatchTally(total=len(batch.items))
        # Its texts are kept only as long as each item needs them.
        self._batch = batch.model_copy(
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
        self._batch_id = batch_id
        self._created_at = created_at
        positions = batch.positions or range(batch.first, batch.first + len(batch.items))
        self._open: dict[int, tuple[str, int]] = {
            position: (item, chosen)
            for position, item, chosen in zip(positions, batch.items, batch.chosen, strict=True)
        }
        self._unfinished = deque(
            (self._plans[self._open[each.position][1]].plan, each) for each in batch.unfinished
        )
        self._under_way = {each.position for each in batch.unfinished}
        self._unwanted: set[int] = set()
        self._alone: deque[int] = deque()
        self._waiting: dict[int, deque[int]] = {}
        for position, (_, chosen) in self._open.items():
            if position not in self._under_way:
                self._wait(position, chosen)

    def _wait(self, position: int, chosen: int) -> None:
        if self._plans[chosen].alone:
            self._alone.append(position)
        else:
            self._waiting.setdefault(chosen, deque()).append(position)

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
        chosen = {position: self._open[position][1] for position in rest}
        going_on = [(plan, each) for plan, each in self._unfinished if each.position in self._open]
        for plan, each in going_on:
            # It goes on at the agent that has tried it, which may be a fallback.
            entry = plans[chosen[each.position]].model_copy(update={"plan": plan})
            if entry not in plans:
                plans.append(entry)
            chosen[each.position] = plans.index(entry)
        return self._batch.model_copy(
            update={
                "plans": tuple(plans),
                "items": tuple(self._open[position][0] for position in rest),
                "chosen": tuple(chosen.values()),
                "positions": tuple(rest),
                "unfinished": tuple(each for _, each in going_on),
                "tally": self.tally,
            }
        )

    def next_alone(self) -> tuple[Plan, int, Begun | None] | None:
        """Take the next item that is to be a task of its own; those that were begun go first."""
        while self._unfinished:
            plan, each = self._unfinished.popleft()
            if self._take(each.position):
                return plan, each.position, Begun(progress=each.progress, pause=each.pause)
        while self._alone:
            position = self._alone.popleft()
            if self._take(position):
                return self._plans[self._open[position][1]].plan, position, None
        return None

    def next_chunk(self) -> tuple[int, BatchPlan, tuple[int, ...]] | None:
        """Take the next items that go together: the number of their plan, it, and positions."""
        for chosen, waiting in list(self._waiting.items()):
            taken = self._some(waiting)
            if not waiting:
                del self._waiting[chosen]
            if taken:
                return chosen, self._plans[chosen], taken
        return None

    def _some(self, waiting: deque[int]) -> tuple[int, ...]:
        taken: list[int] = []
        size = 0
        while waiting and len(taken) < CHUNK_ITEMS:
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
        for position in reversed(tuple(positions)):
            self._under_way.discard(position)
            if position in self._unwanted:
                self.end(position, TaskState.CANCELLED)
            elif position in self._open:
                self._waiting.setdefault(chosen, deque()).appendleft(position)

    def go_on(self, plan: Plan, unfinished: Unfinished) -> None:
        """An item of a chunk is to go on alone; another agent than at first may have been asked."""
        self._unfinished.append((plan, unfinished))

    @property
    def many_go_on(self) -> bool:
        """Whether items that were begun wait to go on: then no more are begun."""
        return bool(self._unfinished)

    def end(self, position: int, state: TaskState) -> bool:
        """The item has ended; False if it had before."""
        if self._open.pop(position, None) is None:
            return False
        self._under_way.discard(position)
        self._unwanted.discard(position)
        ended = {state.value: getattr(self.tally, state.value) + 1}
        self.tally = self.tally.model_copy(update=ended)
        return True

    def cancel(self, positions: Iterable[int]) -> None:
        """End those that are not under way; of the others what is given back is not begun again."""
        for position in positions:
            if position in self._under_way:
                self._unwanted.add(position)
            else:
                self.end(position, TaskState.CANCELLED)

    def cancel_all(self) -> None:
        """End all that have not ended."""
        for position in list(self._open):
            self.end(position, TaskState.CANCELLED)

    def text(self, position: int) -> str:
        """The item's request as JSON."""
        return self._open[position][0]

    def is_open(self, position: int) -> bool:
        """Whether the item has not ended."""
        return position in self._open

    def plan_of(self, agent: str) -> Plan:
        """A plan by which the agent is called, be it as a fallback."""
        plans = (each.plan for each in self._plans)
        return next(plan for plan in plans if agent in {route.agent for route in plan.routes})

    def task(self, plan: Plan, position: int, now: datetime, begun: Begun | None = None) -> Task:
        """The item as a task of its own."""
        text, chosen = self._open[position]
        if self._plans[chosen].strict:
            spent = (now - self._created_at).total_seconds()
            plan = plan.model_copy(update={"deadline": max(0.001, plan.deadline - spent)})
        further: dict[str, Any] = {"plan": plan, "batch": self._batch_id}
        if self._batch.traceparent:
            further["traceparent"] = self._batch.traceparent
        if begun:
            further["begun"] = begun
        return Task.model_validate_json(text).model_copy(update=further)
