"""So many calls at a time: further ones wait for their turn, as long as others get on."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import EngineBusy


class Turn:
    """The place of one call."""

    def __init__(self, turns: "Turns") -> None:
        self._turns: Turns | None = turns

    @contextmanager
    def beside(self) -> Iterator[None]:
        """In the block it asks nothing of the engine: nobody is to take that for silence."""
        turns = self._turns
        if turns is None:
            yield
            return
        turns.beside += 1
        try:
            yield
        finally:
            turns.beside -= 1
            turns.note()

    def leave(self, *, answered: bool = False) -> None:
        """Give the place to the next, once; ``answered`` says that the engine gets on."""
        if self._turns is not None:
            self._turns.give_back(answered=answered)
            self._turns = None


class Turns:
    """Places for calls of one process, taken in the order in which they are wanted."""

    def __init__(self, places: int) -> None:
        self.places = places
        """How many there are."""
        self._free = places
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._moved = 0.0
        """When one of the calls last got on, by the loop's clock."""
        self.beside = 0
        """How many of the calls are at something else."""

    async def take(self, patience: float) -> Turn:
        """Wait for a place, unless the engine answers none of the calls for so many seconds.

        Raises:
            EngineBusy: it did not.
        """
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait(patience)
        return Turn(self)

    async def _wait(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        mine, since = loop.create_future(), loop.time()
        self._waiting.append(mine)
        try:
            while not mine.done():
                if self.beside:
                    self.note()
                left = max(since, self._moved) + patience - loop.time()
                if left <= 0:
                    break
                await asyncio.wait({mine}, timeout=left)
        except BaseException:
            if not mine.cancel():
                self.give_back()  # it came in the same moment
            raise
        if mine.cancel():
            raise EngineBusy("The engine did not answer in time")

    def resize(self, places: int) -> None:
        """Have so many places from now on; calls under way beyond them end as they would."""
        more = places - self.places
        self.places = places
        if more < 0:
            self._free += more
        for _ in range(more):
            self.give_back()

    def note(self) -> None:
        """One of the calls got on."""
        self._moved = asyncio.get_running_loop().time()

    def give_back(self, *, answered: bool = False) -> None:
        """Free a place for the first who waits; ``answered`` by the engine, or only ended."""
        if answered:
            self.note()
        if self._free < 0:
            self._free += 1
            return
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                return
        self._free += 1
