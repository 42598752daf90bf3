"""The first answer to each call, kept for its repetitions."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

_MAX_ANSWERS = 1024
_MAX_BYTES = 64 * 1024 * 1024

CallKey = tuple[str, str]


class Answers:
    """Bounded memory of answers by agent and idempotency key; the one unused longest goes first.

    Args:
        max_answers: How many answers are kept.
        max_bytes: How many bytes they may have together.
    """

    def __init__(self, max_answers: int = _MAX_ANSWERS, max_bytes: int = _MAX_BYTES) -> None:
        self._max_answers = max_answers
        self._max_bytes = max_bytes
        self._kept: OrderedDict[CallKey, bytes] = OrderedDict()
        self._bytes = 0
        self._locks: WeakValueDictionary[CallKey, asyncio.Lock] = WeakValueDictionary()

    async def once(self, key: CallKey, work: Callable[[], Awaitable[bytes]]) -> tuple[bytes, bool]:
        """Give the kept answer, or do the work and keep what comes of it.

        Requests with the same key wait for each other, so the work is done once. An error is not
        kept: the next request tries again.

        Args:
            key: The agent and the call's idempotency key.
            work: Computes the answer.

        Returns:
            The answer, and whether it is a repetition.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key], True
            answer = await work()
            self._keep(key, answer)
            return answer, False

    def _keep(self, key: CallKey, answer: bytes) -> None:
        self._kept[key] = answer
        self._bytes += len(answer)
        while len(self._kept) > self._max_answers or self._bytes > self._max_bytes:
            self._bytes -= len(self._kept.popitem(last=False)[1])
