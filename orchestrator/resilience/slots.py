"""How many calls of one agent this process has in flight, of as many as it may have."""

import asyncio
import contextlib
from collections.abc import Callable


class Slots:
    """Slots for calls, as many as ``capacity`` says now; for one event loop.

    ``next_look`` tells after how many seconds time alone may have changed the capacity; ``tell``
    is to be called when anything else has.
    """

    def __init__(self, capacity: Callable[[], int], next_look: Callable[[], float]) -> None:
        self._capacity = capacity
        self._next_look = next_look
        self._changed = asyncio.Event()
        self.used = 0
        self.waiting = 0
        """How many wait in ``take``: who holds slots beyond the first gives way to them."""

    async def take(self) -> None:
        """Wait for a slot, and take it."""
        self.waiting += 1
        try:
            while self.used >= self._capacity():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._next_look()):
                        await self._changed.wait()
            self.used += 1
        finally:
            self.waiting -= 1

    def try_take(self) -> bool:
        """Take a slot if one is free that nobody waits for."""
        if self.waiting or self.used >= self._capacity():
            return False
        self.used += 1
        return True

    def give_back(self) -> None:
        """Give one back."""
        self.used -= 1
        self._changed.set()

    def tell(self) -> None:
        """The capacity may have become another."""
        self._changed.set()
