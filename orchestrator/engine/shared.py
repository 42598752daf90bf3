"""One question under way at a time for each key, however many ask it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class SharedQuestions(Generic[Answer]):
    """Who asks while the same is being asked is answered with those who asked before."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Task[Answer]] = {}

    async def ask(self, key: str, question: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """The answer; what the question raises, all get."""
        asked = self._asked.get(key)
        # One that has been answered is removed a moment later, in which others may come.
        if asked is None or asked.done():
            asked = self._asked[key] = asyncio.create_task(question())
            asked.add_done_callback(lambda ended: self._answered(key, ended))
        return await asyncio.shield(asked)

    def forget(self, key: str) -> None:
        """Whoever asks from now on is to get an answer of its own."""
        self._asked.pop(key, None)

    def _answered(self, key: str, ended: asyncio.Task[Answer]) -> None:
        if self._asked.get(key) is ended:
            del self._asked[key]
        if not ended.cancelled():
            ended.exception()  # those who asked may all have left
