"""What was asked for and what was answered: the state that the invariants are checked against."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

FINAL = frozenset({"completed", "failed", "cancelled"})
LASTING = ("status", "result", "error", "error_type")
"""Of a final status, what may never change."""


@dataclass
class Item:
    """One task, under the number that its payload carries.

    Args:
        number: of this run.
        pattern: of its rule.
        replies: how its agent answers, call by call.
        source: single, batch, aggregate or message.
        key: its idempotency key, where it has one of its own.
    """

    number: int
    pattern: str
    replies: list[str]
    source: str = "single"
    key: str | None = None
    callback_url: str | None = None
    timeout: float | None = None
    task_id: str | None = None
    redriven: int = 0
    """Orders to run it again that were sent, whether or not they were answered."""
    epoch: int = 0
    """Readings that began in an earlier one do not count."""
    in_doubt: bool = False
    """An order to run it again is under way: it may be as it was, or anew."""
    discarded: bool = False
    final: dict[str, Any] | None = None
    finals: int = 0
    """How often its final status was read."""

    def body(self) -> dict[str, Any]:
        """Of POST /orchestrate."""
        payload = {"number": self.number, "replies": self.replies}
        more = {"callback_url": self.callback_url, "timeout": self.timeout}
        found = {name: value for name, value in more.items() if value is not None}
        return {"pattern": self.pattern, "payload": payload, **found}


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept."""

    invariant: str
    what: str


@dataclass
class Ledger:
    """All that a run has asked for."""

    items: dict[int, Item] = field(default_factory=dict)
    by_id: dict[str, Item] = field(default_factory=dict)
    batches: dict[str, list[Item]] = field(default_factory=dict)
    aggregates: dict[str, tuple[list[str], list[Item]]] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    operations: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    slowest_answer: float = 0.0
    violations: list[Violation] = field(default_factory=list)

    def add(self, pattern: str, replies: list[str], **more: Any) -> Item:
        """A new task, not yet handed in."""
        item = Item(len(self.items) + 1, pattern, [str(each) for each in replies], **more)
        self.items[item.number] = item
        return item

    def violate(self, invariant: str, what: str) -> None:
        """Note what must not be."""
        violation = Violation(invariant, what)
        if violation not in self.violations:
            self.violations.append(violation)

    def accepted(self, item: Item, task_id: str) -> None:
        """The product has said under which id it has the task."""
        if item.task_id not in {None, task_id}:
            self.violate("I6", f"task {item.number} exists as {item.task_id} and as {task_id}")
        if self.by_id.setdefault(task_id, item) is not item:
            other = self.by_id[task_id].number
            self.violate("I1", f"{task_id} was given to tasks {other} and {item.number}")
        item.task_id = task_id

    def seen(self, item: Item, status: dict[str, Any], epoch: int) -> None:
        """The product has said how a task is.

        Args:
            item: the task.
            status: as GET /status shows it.
            epoch: of the task when that was asked.
        """
        if epoch != item.epoch or item.in_doubt:
            return
        if status["status"] in FINAL:
            item.finals += 1
        if item.final is None:
            item.final = status if status["status"] in FINAL else None
            return
        was, now = ({name: each.get(name) for name in LASTING} for each in (item.final, status))
        if was != now:
            self.violate("I2", f"{item.task_id} was {_short(was)}, and then {_short(now)}")

    @contextmanager
    def redriving(self, item: Item) -> Iterator[None]:
        """It is run again, so that what it was does not bind; meanwhile it may be either."""
        item.in_doubt = True
        try:
            yield
        finally:
            item.in_doubt = False
            item.epoch += 1
            item.final = None

    def open_items(self) -> list[Item]:
        """Those that were accepted, and whose end nobody has seen."""
        return [each for each in self.items.values() if each.task_id and each.final is None]


def _short(value: Any) -> str:
    return json.dumps(value)[:300]
