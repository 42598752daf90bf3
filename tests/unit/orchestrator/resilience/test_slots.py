"""An agent's slots in a process: never more than the capacity, and who waits goes first."""

import asyncio

from orchestrator.resilience.slots import Slots

DEADLINE_SECONDS = 10.0
NEVER = 3600.0


class Room:
    """A capacity that tests change."""

    def __init__(self, capacity: int, look: float = NEVER) -> None:
        self.capacity = capacity
        self.slots = Slots(lambda: self.capacity, lambda: look)


async def settled() -> None:
    """Let everything that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_there_are_as_many_slots_as_the_capacity() -> None:
    """The next one waits until one is given back."""
    slots = Room(2).slots
    await slots.take()
    await slots.take()
    third = asyncio.create_task(slots.take())
    await settled()
    assert (2, 1, False) == (slots.used, slots.waiting, third.done())
    slots.give_back()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await third
    assert (2, 0) == (slots.used, slots.waiting)


async def test_nobody_takes_more_than_there_is_without_waiting() -> None:
    """It is said at once."""
    slots = Room(2).slots
    assert [True, True, False] == [slots.try_take() for _ in range(3)]
    slots.give_back()
    assert (True, 2) == (slots.try_take(), slots.used)


async def test_who_waits_goes_before_who_does_not() -> None:
    """A free slot that somebody waits for is not free."""
    slots = Room(1).slots
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await settled()
    slots.give_back()
    assert not slots.try_take()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await waiting
    assert 1 == slots.used


async def test_more_room_wakes_whoever_waits() -> None:
    """As soon as it is told."""
    room = Room(0)
    waiting = [asyncio.create_task(room.slots.take()) for _ in range(3)]
    await settled()
    room.capacity = 2
    room.slots.tell()
    await settled()
    assert [2, 1, 2] == [sum(each.done() for each in waiting), room.slots.waiting, room.slots.used]
    waiting[2].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_room_that_time_brings_is_found() -> None:
    """Nobody tells of it."""
    room = Room(0, look=0.01)
    waiting = asyncio.create_task(room.slots.take())
    await settled()
    room.capacity = 1
    async with asyncio.timeout(DEADLINE_SECONDS):
        await waiting
    assert 1 == room.slots.used


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    """Neither a slot nor a place in the row."""
    slots = Room(0).slots
    waiting = asyncio.create_task(slots.take())
    await settled()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (0, 0) == (slots.used, slots.waiting)


async def test_a_capacity_that_shrinks_takes_no_slot_away() -> None:
    """There are no new ones until enough were given back."""
    room = Room(3)
    assert all(room.slots.try_take() for _ in range(3))
    room.capacity = 1
    room.slots.give_back()
    room.slots.give_back()
    assert (1, False) == (room.slots.used, room.slots.try_take())
    room.slots.give_back()
    assert room.slots.try_take()
