"""The engine's numbers on demand."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client

from orchestrator.engine import overview as overview_module
from orchestrator.engine.overview import Overview, Snapshot
from orchestrator.engine.tasks import Tasks


@pytest.fixture
def overview(client: Client) -> Overview:
    """Of an agent that no other test knows."""
    return Overview(client, Tasks(client, 10).batches.lists, (f"agent-{uuid4()}",), 10)


@pytest.fixture
def asked(overview: Overview, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One item for each time that the engine was asked."""
    asked: list[Any] = []
    ask: Callable[[], Awaitable[Snapshot]] = overview._ask

    async def noted() -> Snapshot:
        asked.append(1)
        return await ask()

    monkeypatch.setattr(overview, "_ask", noted)
    return asked


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
