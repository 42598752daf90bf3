"""The activity outside the engine: patience with an engine that is away, and its end."""

# ruff: noqa: ARG002 - a stand-in takes what the real one takes

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from temporalio.testing import ActivityEnvironment

from activities import redrive
from activities.redrive import Redriver
from orchestrator.dead_letters import (
    BulkAction,
    BulkOrder,
    BulkTally,
    DeadLetterFilter,
    DeadLetterItem,
    DeadLetterOrder,
    RedriveAgent,
    Resolution,
    Resolved,
)
from orchestrator.engine.dead_letters import DeadLetters, FoundDeadLetter
from orchestrator.errors import EngineUnavailable

ORDER = BulkOrder(action=BulkAction.REDRIVE, filter=DeadLetterFilter(), rate=1000.0, matched=2)
AWAY = EngineUnavailable("The engine is unreachable")


def letter(task_id: str, runs: int = 1) -> FoundDeadLetter:
    """One in the list."""
    now = datetime.now(UTC)
    item = DeadLetterItem(
        task_id=task_id, error="x", attempts=1, runs=runs, created_at=now, failed_at=now
    )
    return FoundDeadLetter(item, f"run of {task_id}", repeatable=True)


@dataclass
class Unreliable(DeadLetters):
    """An engine with some dead letters that fails the first calls of each kind."""

    letters: Sequence[FoundDeadLetter]
    listing_fails: int = 0
    resolving_fails: int = 0
    resolved: list[tuple[str, str | None]] = field(default_factory=list)

    async def find(
        self, chosen: DeadLetterFilter, size: int, cursor: str | None = None
    ) -> tuple[Sequence[FoundDeadLetter], str | None]:
        """All on one page."""
        if self.listing_fails:
            self.listing_fails -= 1
            raise AWAY
        return self.letters, None

    async def count(self, chosen: DeadLetterFilter) -> int:
        """Those that are left."""
        return len(self.letters) - len(self.resolved)

    async def resolve(
        self, action: BulkAction, task_id: str, order: DeadLetterOrder, run_id: str | None = None
    ) -> Resolved:
        """Remember it."""
        if self.resolving_fails:
            self.resolving_fails -= 1
            raise AWAY
        self.resolved.append((task_id, run_id))
        return Resolved(resolution=Resolution.REDRIVEN)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrive, "ENGINE_PAUSE_SECONDS", 0.001)


async def carried_out(engine: DeadLetters) -> BulkTally:
    """What one order came to."""
    return await ActivityEnvironment().run(Redriver(engine).redrive_many, ORDER)


async def test_an_engine_that_is_away_is_waited_for() -> None:
    """Nothing is given up for it."""
    engine = Unreliable([letter("a"), letter("b")], listing_fails=5, resolving_fails=2)
    tally = await carried_out(engine)
    assert (2, 2, 0) == (tally.matched, tally.done, tally.failed)
    assert {("a", "run of a"), ("b", "run of b")} == set(engine.resolved)


async def test_what_no_worker_carries_out_is_given_up_in_the_end() -> None:
    """The engine answers, but that one never does: the others must not wait for it."""
    tally = await carried_out(Unreliable([letter("a")], resolving_fails=redrive.TRIES))
    assert (0, 1) == (tally.done, tally.failed)
    assert "a: The engine is unreachable" == tally.last_failure


async def test_a_task_that_failed_too_often_is_left_to_people() -> None:
    """It may be what breaks its agent."""
    engine = Unreliable([letter("a", runs=10), letter("b", runs=9)])
    order = RedriveAgent(agent="reader", rate=1000.0)
    tally = await ActivityEnvironment().run(Redriver(engine).redrive_agent, order)
    assert [("b", "run of b")] == engine.resolved
    assert (1, 1) == (tally.done, tally.skipped)
