"""The agent that keeps who is in which room, and merges what replicas have seen."""

from collections import OrderedDict
from typing import Annotated, Literal

from pydantic import Field, RootModel

from examples.agents.contract import Answer, Payload, Refusal, Wish

_MAX_ROOMS = 100
_MAX_MEMBERS = 200
_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Vector = Annotated[dict[_Name, Annotated[int, Field(ge=0)]], Field(max_length=100)]


class Presence(Wish):
    """Someone joins or leaves a room."""

    action: Literal["join", "leave"]
    room: _Name
    user_id: _Name


class Roll(Wish):
    """Who is in a room?"""

    action: Literal["members"]
    room: _Name


class Merge(Wish):
    """What do replicas know together? Each vector counts the changes seen, by replica."""

    action: Literal["merge"]
    vectors: list[_Vector] = Field(min_length=1, max_length=100)


class CoordinationWish(
    RootModel[Annotated[Presence | Roll | Merge, Field(discriminator="action")]]
):
    """One of the actions of the agent."""


class Rooms:
    """The members of rooms, in memory; the room quiet for longest makes place for a new one."""

    def __init__(self) -> None:
        self._rooms: OrderedDict[str, set[str]] = OrderedDict()

    def coordinate(self, payload: Payload) -> Answer:
        """Join, leave or list a room, or merge version vectors."""
        match CoordinationWish.model_validate(payload).root:
            case Merge(vectors=vectors):
                return {"vector": merge(vectors), "method": "maximum by replica"}
            case Roll(room=room):
                return self._roll(room)
            case Presence(action="join", room=room, user_id=user_id):
                self._join(room, user_id)
                return self._roll(room)
            case Presence(room=room, user_id=user_id):
                self._leave(room, user_id)
                return self._roll(room)

    def _join(self, room: str, user_id: str) -> None:
        members = self._rooms.setdefault(room, set())
        if len(members) >= _MAX_MEMBERS and user_id not in members:
            raise Refusal(f"Room {room!r} is full: it has {_MAX_MEMBERS} members")
        members.add(user_id)
        self._rooms.move_to_end(room)
        if len(self._rooms) > _MAX_ROOMS:
            self._rooms.popitem(last=False)

    def _leave(self, room: str, user_id: str) -> None:
        members = self._rooms.get(room, set())
        members.discard(user_id)
        if not members:
            self._rooms.pop(room, None)

    def _roll(self, room: str) -> Answer:
        members = sorted(self._rooms.get(room, ()))
        return {"room": room, "members": members, "method": "set of members in memory"}


def merge(vectors: list[dict[str, int]]) -> dict[str, int]:
    """Merge version vectors: of each replica the latest change that any of them has seen."""
    replicas = sorted({replica for vector in vectors for replica in vector})
    return {replica: max(vector.get(replica, 0) for vector in vectors) for replica in replicas}
