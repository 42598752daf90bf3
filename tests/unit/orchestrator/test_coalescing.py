"""How tasks are gathered: what goes together, when it goes, and whom a failure meets."""

import asyncio
import itertools
import json

import pytest

from orchestrator import coalescing
from orchestrator.batches import PART_BYTES, Batch, place_of
from orchestrator.coalescing import LARGE_BYTES, Coalescer, Item
from orchestrator.config import Coalescing
from orchestrator.errors import EngineUnavailable
from orchestrator.models import Dispatch, TaskRequest
from tests.support.plans import plan

TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
PLAN = plan(dispatch=Dispatch.COALESCED)


def item(number: int = 0, tenant: str = "default", trace: str | None = None) -> Item:
    """A task whose payload tells its number."""
    request = TaskRequest(pattern="read_pdf", payload={"n": number}, tenant=tenant)
    return Item.of(request, trace)


class Engine:
    """Starts batches when it is told to, and remembers them; each start takes so many seconds."""

    def __init__(self, patience: float = 60, seconds: float = 0, **settings: float) -> None:
        self.begun: list[Batch] = []
        self.answers: list[asyncio.Future[None]] = []
        chosen = Coalescing(**settings)  # type: ignore[arg-type]
        clock = itertools.count(step=seconds).__next__
        self.coalescer = Coalescer(chosen, self.start, patience, clock)
        self._heard = asyncio.Condition()

    async def start(self, batch: Batch) -> None:
        """Wait for the test to answer."""
        answer = asyncio.get_running_loop().create_future()
        self.begun.append(batch)
        self.answers.append(answer)
        async with self._heard:
            self._heard.notify_all()
        await answer

    async def has_begun(self, count: int) -> Batch:
        """Wait for so many starts; the last of them."""
        async with asyncio.timeout(10), self._heard:
            await self._heard.wait_for(lambda: len(self.begun) >= count)
        return self.begun[count - 1]

    def answer(self, which: int, error: Exception | None = None) -> None:
        """Let a start return, or fail."""
        if error:
            self.answers[which].set_exception(error)
        else:
            self.answers[which].set_result(None)

    def submit(self, *items: Item) -> list[asyncio.Task[tuple[str, object]]]:
        """Hand in each at once."""
        return [asyncio.create_task(self.coalescer.submit(each, PLAN)) for each in items]


def numbers(batch: Batch) -> list[int]:
    """Those of the tasks of a batch."""
    return [json.loads(text)["payload"]["n"] for text in batch.items]


async def test_what_comes_at_once_goes_together_and_at_once() -> None:
    """The position in the batch is told by each task's id."""
    engine = Engine(window=1)
    waiting = engine.submit(*map(item, range(5)))
    batch = await engine.has_begun(1)
    engine.answer(0)
    ids = [(await each)[0] for each in waiting]

    assert [0, 1, 2, 3, 4] == numbers(batch)
    assert [(batch.batch_id, position) for position in range(5)] == list(map(place_of, ids))


async def test_nobody_is_answered_before_the_engine_has_it() -> None:
    """Neither is anybody with another group."""
    engine = Engine(window=0)
    first = engine.submit(item(0))
    await engine.has_begun(1)
    second = engine.submit(item(1))
    engine.answer(0)
    await first[0]
    await engine.has_begun(2)

    assert not second[0].done()
    engine.answer(1)
    await second[0]


async def test_while_one_is_started_others_are_gathered() -> None:
    """They go as soon as that has returned, however long their window is."""
    engine = Engine(window=1)
    first = engine.submit(item(0))
    await engine.has_begun(1)
    second = [*engine.submit(item(1)), *engine.submit(item(2))]
    await asyncio.sleep(0)
    assert 1 == len(engine.begun)
    engine.answer(0)
    batch = await engine.has_begun(2)
    engine.answer(1)
    await asyncio.gather(*first, *second)

    assert [1, 2] == numbers(batch)


async def test_a_start_of_several_is_followed_by_a_rest_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who was answered by it comes again meanwhile; what is full goes at once all the same."""
    monkeypatch.setattr(coalescing, "REST_SECONDS", 60)
    engine = Engine(seconds=60, window=0, max_tasks=3)
    first = engine.submit(item(0), item(1))
    await engine.has_begun(1)
    engine.answer(0)
    await asyncio.gather(*first)
    again = engine.submit(item(2), item(3))
    for _ in range(10):
        await asyncio.sleep(0)
    assert 1 == len(engine.begun)
    again += engine.submit(item(4))

    assert [2, 3, 4] == numbers(await engine.has_begun(2))
    engine.answer(1)
    await asyncio.gather(*again)


async def test_a_rest_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon, however long the start took: the engine may be far away rather than busy."""
    monkeypatch.setattr(coalescing, "REST_SECONDS", 0.5)
    engine = Engine(seconds=60)
    first = engine.submit(item(0))
    await engine.has_begun(1)
    second = engine.submit(item(1))
    await asyncio.sleep(0)
    engine.answer(0)
    await first[0]
    third = engine.submit(item(2))

    assert [1, 2] == numbers(await engine.has_begun(2))
    engine.answer(1)
    await asyncio.gather(*second, *third)


async def test_a_short_start_is_followed_by_a_short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is none that is waited for."""
    monkeypatch.setattr(coalescing, "REST_SECONDS", 60)
    engine = Engine(seconds=0.01)
    for number in range(3):
        several = engine.submit(item(2 * number), item(2 * number + 1))
        batch = await engine.has_begun(number + 1)
        assert [2 * number, 2 * number + 1] == numbers(batch)
        engine.answer(number)
        await asyncio.gather(*several)


async def test_a_rest_takes_one_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more than one start may be under way, others go beside it; full groups all the same."""
    monkeypatch.setattr(coalescing, "REST_SECONDS", 60)
    engine = Engine(seconds=60, window=0, max_starts=2, max_tasks=3)
    waiting = engine.submit(item(0), item(1))
    await engine.has_begun(1)
    engine.answer(0)
    await asyncio.gather(*waiting)
    waiting = engine.submit(item(2))
    assert [2] == numbers(await engine.has_begun(2))
    waiting += engine.submit(item(3), item(4))
    for _ in range(10):
        await asyncio.sleep(0)
    assert 2 == len(engine.begun)
    waiting += engine.submit(item(5))

    assert [3, 4, 5] == numbers(await engine.has_begun(3))
    engine.answer(1)
    engine.answer(2)
    await asyncio.gather(*waiting)


async def test_there_is_no_rest_for_who_comes_alone_or_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One client that hands in one task after another is never held up."""
    monkeypatch.setattr(coalescing, "REST_SECONDS", 60)
    engine = Engine(seconds=60)
    for number in range(3):
        alone = engine.submit(item(number))
        assert [number] == numbers(await engine.has_begun(number + 1))
        engine.answer(number)
        await alone[0]

    lost = engine.submit(item(3), item(4))
    await engine.has_begun(4)
    engine.answer(3, EngineUnavailable("The engine is unreachable"))
    for each in lost:
        with pytest.raises(EngineUnavailable):
            await each
    last = engine.submit(item(5))
    assert [5] == numbers(await engine.has_begun(5))
    engine.answer(4)
    await last[0]


async def test_when_the_window_is_over_they_go_beside_the_one_that_is_started() -> None:
    """As far as so many may be under way."""
    engine = Engine(window=0, max_starts=2)
    waiting = engine.submit(item(0))
    await engine.has_begun(1)
    waiting += engine.submit(item(1))
    await engine.has_begun(2)
    waiting += [*engine.submit(item(2)), *engine.submit(item(3))]
    for which in range(2):
        engine.answer(which)
    batch = await engine.has_begun(3)
    engine.answer(2)
    await asyncio.gather(*waiting)

    assert [2, 3] == numbers(batch)


async def test_a_full_group_takes_no_more() -> None:
    """Be it by number or by size; what is over goes with the next."""
    engine = Engine(window=1, max_tasks=2, max_starts=100)
    waiting = engine.submit(*map(item, range(5)))
    await engine.has_begun(2)
    assert [[0, 1], [2, 3]] == list(map(numbers, engine.begun))
    engine.answer(0)
    engine.answer(1)
    assert [4] == numbers(await engine.has_begun(3))
    engine.answer(2)
    await asyncio.gather(*waiting)

    engine = Engine(window=1, max_starts=100)
    large = Item("{}", PART_BYTES // 2 + 1, "default")
    waiting = engine.submit(large, large)
    await engine.has_begun(2)
    engine.answer(0)
    engine.answer(1)
    await asyncio.gather(*waiting)
    assert [1, 1] == [len(batch.items) for batch in engine.begun]


async def test_a_failed_start_fails_exactly_its_own_tasks() -> None:
    """And the next group goes all the same."""
    engine = Engine(window=1)
    lost = engine.submit(item(0), item(1))
    await engine.has_begun(1)
    kept = engine.submit(item(2))
    await asyncio.sleep(0)
    engine.answer(0, EngineUnavailable("The engine is unreachable"))
    for each in lost:
        with pytest.raises(EngineUnavailable):
            await each
    await engine.has_begun(2)
    engine.answer(1)

    assert await kept[0]


async def test_those_whose_turn_does_not_come_are_not_started() -> None:
    """While the engine keeps silent; they may be sent again, and are done once."""
    engine = Engine(window=1, patience=0.05, max_tasks=2)
    first = engine.submit(item(0))
    await engine.has_begun(1)
    late = engine.submit(*map(item, range(1, 4)))
    for each in late:
        with pytest.raises(EngineUnavailable):
            await each
    engine.answer(0)
    await first[0]
    again = engine.submit(item(4))
    assert [4] == numbers(await engine.has_begun(2))
    engine.answer(1)
    assert await again[0]


async def test_a_request_that_is_given_up_takes_no_other_with_it() -> None:
    """Its own task is started as well: nobody can know how far it had come."""
    engine = Engine(window=1)
    gone, kept = engine.submit(item(0), item(1))
    batch = await engine.has_begun(1)
    gone.cancel()
    engine.answer(0)

    assert (batch.batch_id, 1) == place_of((await kept)[0])
    assert [0, 1] == numbers(batch)


async def test_tasks_of_one_plan_and_tenant_share_it() -> None:
    """Each keeps its own deadline and token, which the batch is told."""
    engine = Engine(window=1)
    waiting = engine.submit(item(0), item(1, "acme"), item(2))
    batch = await engine.has_begun(1)
    engine.answer(0)
    await asyncio.gather(*waiting)

    assert (["default", "acme"], (0, 1, 0)) == ([each.tenant for each in batch.plans], batch.chosen)
    assert batch.coalesced
    assert all(each.strict and each.pace is None for each in batch.plans)
    assert {Dispatch.QUEUED} == {each.plan.dispatch for each in batch.plans}


def test_an_item_carries_the_trace_of_its_own_request() -> None:
    """Beside what the request said, and nothing that it did not say."""
    assert {"pattern": "read_pdf", "payload": {"n": 1}, "tenant": "default"} == json.loads(
        item(1).text
    )
    assert TRACE == json.loads(item(1, trace=TRACE).text)["traceparent"]


def test_a_large_task_is_better_started_by_itself() -> None:
    """As its text is counted within a batch."""
    request = TaskRequest(pattern="read_pdf", payload={"text": '"' * (LARGE_BYTES // 2)})
    assert Item.of(request).is_large
    assert not item().is_large
