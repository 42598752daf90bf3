"""One question for all who ask, and a new one for whoever comes when it is answered."""

import asyncio

import pytest

from orchestrator.engine.shared import SharedQuestions


class Engine:
    """Answers when it is told to, with the number of the question."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.shared = SharedQuestions[int]()

    async def question(self) -> int:
        """How many questions there have been."""
        self.asked += 1
        number = self.asked
        await self.may_answer.wait()
        return number

    def ask(self) -> asyncio.Task[int]:
        """Somebody asks."""
        return asyncio.create_task(self.shared.ask("it", self.question))


async def test_who_asks_meanwhile_is_answered_too() -> None:
    """By one question."""
    engine = Engine()
    asking = [engine.ask() for _ in range(5)]
    await asyncio.sleep(0)
    engine.may_answer.set()
    assert [1] * 5 == await asyncio.gather(*asking)


async def test_who_comes_as_it_is_answered_asks_anew() -> None:
    """Also in the moment in which the answered one has not been removed: or it would spin."""
    engine = Engine()
    engine.may_answer.set()

    async def again_and_again() -> list[int]:
        return [await engine.shared.ask("it", engine.question) for _ in range(3)]

    found = await asyncio.gather(again_and_again(), again_and_again())
    assert [1, 2, 3] == found[0]
    assert found[0] == sorted(set(found[0]))


async def test_what_was_forgotten_is_asked_anew() -> None:
    """The old answer goes to those who had asked before."""
    engine = Engine()
    before = engine.ask()
    await asyncio.sleep(0)
    engine.shared.forget("it")
    after = engine.ask()
    await asyncio.sleep(0)
    engine.may_answer.set()
    assert [1, 2] == [await before, await after]


async def test_all_get_an_error() -> None:
    """And who gave up leaves the others alone."""
    engine = Engine()

    async def broken() -> int:
        await engine.may_answer.wait()
        raise LookupError

    asking = [asyncio.create_task(engine.shared.ask("it", broken)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    engine.may_answer.set()
    for each in asking[1:]:
        with pytest.raises(LookupError):
            await each
