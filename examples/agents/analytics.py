"""The agent that aggregates events of learners."""

from collections import Counter
from datetime import UTC, datetime
from statistics import mean, median

from pydantic import AliasChoices, ConfigDict, Field

from examples.agents.contract import Answer, Payload, Wish

_MAX_EVENTS = 10_000


class Event(Wish):
    """Something that a learner did, with a number if it has one."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    name: str = Field(
        min_length=1,
        max_length=100,
        validation_alias=AliasChoices("name", "event", "type"),
    )
    user_id: str | None = Field(None, max_length=200)
    value: float | None = Field(None, ge=-1e15, le=1e15)
    at: datetime | None = Field(None, validation_alias=AliasChoices("at", "timestamp"))


class TrackWish(Wish):
    """The events to aggregate."""

    events: list[Event] = Field(min_length=1, max_length=_MAX_EVENTS)


def track_analytics(payload: Payload) -> Answer:
    """Count events by name and by day (UTC) and sum up their values."""
    events = TrackWish.model_validate(payload).events
    names = sorted({event.name for event in events})
    days = Counter(_day(event.at) for event in events if event.at is not None)
    return {
        "events": len(events),
        "users": len({event.user_id for event in events if event.user_id is not None}),
        "by_name": {name: _summary([e for e in events if e.name == name]) for name in names},
        "by_day": dict(sorted(days.items())),
        "method": "counts, and mean and median of the values; days are days in UTC",
    }


def _day(at: datetime) -> str:
    return (at if at.tzinfo is None else at.astimezone(UTC)).date().isoformat()


def _summary(events: list[Event]) -> Answer:
    values = [event.value for event in events if event.value is not None]
    summary: Answer = {
        "events": len(events),
        "users": len({event.user_id for event in events if event.user_id is not None}),
    }
    if values:
        summary |= {
            "sum": sum(values),
            "mean": mean(values),
            "median": median(values),
            "min": min(values),
            "max": max(values),
        }
    return summary
