"""What becomes of a message: each is settled once, and none is given up."""

import pytest

from orchestrator.errors import MessageDelayed, MessageRefused
from orchestrator.messaging import Message, delivery
from orchestrator.messaging.delivery import settle


class Handed:
    """A delivery that notes what is done with it."""

    def __init__(self, *, has_room: bool = True) -> None:
        self.message = Message(b"{}", "id")
        self.course: list[str] = []
        self._has_room = has_room

    async def done(self) -> None:
        """Note it."""
        self.course.append("done")

    async def bury(self, refused: MessageRefused) -> None:
        """Note it."""
        self.course.append(f"buried {refused.status}")

    async def keep(self) -> None:
        """Note it."""
        self.course.append("kept")

    async def postpone(self) -> bool:
        """Note it."""
        self.course.append("postponed" if self._has_room else "no room")
        return self._has_room


class Tried:
    """Raises what it was given, one after the other, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self, _: Message) -> None:
        """The next of them."""
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LEAST_PAUSE_SECONDS", 0.001)


async def test_it_is_acknowledged_once_the_engine_has_it() -> None:
    """Not before: while it is delayed it is kept."""
    handed = Handed()
    await settle(handed, Tried(MessageDelayed(0.001, "full"), MessageDelayed(0.001, "full")))
    assert ["kept", "kept", "done"] == handed.course


async def test_what_is_refused_is_buried_and_never_acknowledged_as_done() -> None:
    """With its status."""
    handed = Handed()
    await settle(handed, Tried(MessageRefused(422, "no")))
    assert ["buried 422"] == handed.course


async def test_after_a_while_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the end of the queue; where there is no room it is kept."""
    monkeypatch.setattr(delivery, "HOLD_SECONDS", 0)
    first, second = Handed(), Handed(has_room=False)
    for handed in (first, second):
        await settle(handed, Tried(MessageDelayed(0.001, "full")))
    assert ["postponed"] == first.course
    assert ["no room", "kept", "done"] == second.course
