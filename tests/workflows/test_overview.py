"""The engine's numbers on demand."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client

from orchestrator.engine import overview as overview_module
from orchestrator.engine.overview import Overview, Snapshot
from orchestrator.engine.tasks import Tasks
from orchestrator.models import TaskState
from orchestrator.parts import in_background
from tests.support.stack import eventually


@pytest.fixture
def overview(client: Client) -> Overview:
    """Of an agent that no other test knows."""
    return Overview(client, Tasks(client, 10), (f"agent-{uuid4()}",), 10)


@pytest.fixture
def asked(overview: Overview, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One item for each time that the engine was asked."""
    asked: list[Any] = []
    ask: Callable[..., Awaitable[Snapshot]] = overview._ask

    async def noted(*, counting: bool) -> Snapshot:
        asked.append(1)
        return await ask(counting=counting)

    monkeypatch.setattr(overview, "_ask", noted)
    return asked


@pytest.fixture
def counted(overview: Overview, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One item for each count of what the engine keeps."""
    counted: list[Any] = []
    counts: Callable[[], Awaitable[dict[TaskState, int]]] = overview._tasks.counts

    async def noted() -> dict[TaskState, int]:
        counted.append(1)
        return await counts()

    monkeypatch.setattr(overview._tasks, "counts", noted)
    return counted


async def test_who_comes_together_shares_an_answer(overview: Overview, asked: list[Any]) -> None:
    """Fifty at once have the engine asked once."""
    found = await asyncio.gather(*(overview.renew() for _ in range(50)))
    assert [True] * 50 == [each.reachable for each in found]
    assert 1 == len(asked)


async def test_an_answer_is_newer_than_its_question(
    overview: Overview, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes later has it asked anew, and waits for its turn."""
    monkeypatch.setattr(overview_module, "RENEW_SECONDS", 0.05)
    first, second = await overview.renew(), await overview.renew()
    assert 2 == len(asked)
    assert second.as_of - first.as_of >= 0.05
    assert second is overview.last


async def test_an_engine_that_does_not_answer_is_not_asked_again(
    overview: Overview, asked: list[Any]
) -> None:
    """The numbers stay as they were known last."""
    known = await overview.renew()
    overview._snapshot = Snapshot(reachable=False, as_of=known.as_of, queues=known.queues)
    found = await overview.renew()
    assert (False, known.as_of, 1) == (found.reachable, found.as_of, len(asked))


async def test_nothing_is_counted_for_those_who_need_no_counts(
    overview: Overview, asked: list[Any], counted: list[Any]
) -> None:
    """Admission looks at what waits; who looks at the counts afterwards has them made."""
    await overview.renew()
    assert (1, 0) == (len(asked), len(counted))
    assert not overview.last.counts.is_known
    found = await overview.get()
    assert (2, 1) == (len(asked), len(counted))
    assert found.counts.is_known


async def test_counts_are_kept_fresh_while_somebody_looks_at_them(
    overview: Overview, asked: list[Any], counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards only what waits is asked for."""
    monkeypatch.setattr(overview_module, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(overview_module, "COUNT_SECONDS", 0.01)
    monkeypatch.setattr(overview_module, "COUNT_SHARE", 1.0)
    overview.configure(overview._agents)
    async with in_background(overview.run()):

        async def counted_often() -> bool:
            return len(counted) > 3

        await eventually(counted_often, what="counts")
        monkeypatch.setattr(overview, "_counts_asked_at", float("-inf"))
        asked.clear()

        async def asked_thrice() -> bool:
            return len(asked) >= 3

        await eventually(asked_thrice, what="the round under way, and two more")
        counted.clear()
        asked.clear()
        await eventually(asked_thrice, what="three rounds")
        assert not counted
        overview.last_counted  # noqa: B018 - as Prometheus does

        async def counted_again() -> bool:
            return bool(counted)

        await eventually(counted_again, what="another count")


async def test_a_long_count_is_made_seldom(
    overview: Overview, counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All counts together take a set share of the time."""
    monkeypatch.setattr(overview_module, "COUNT_SHARE", 1e-6)
    due = (await overview.get()).counts.due
    assert due > time.monotonic() + 60
    assert due == (await overview._ask(counting=True)).counts.due
    assert 1 == len(counted)
