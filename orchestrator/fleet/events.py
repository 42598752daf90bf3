"""Events of the fleet, in words."""

from collections.abc import Iterable
from datetime import datetime

from orchestrator.fleet.records import FleetEvent, Happened, InstanceChange


def happening(
    now: datetime, what: Happened, agent: str, instance: str | None, reason: str, by: str
) -> FleetEvent:
    """Something that happened; ``by`` names a person, a process or a part."""
    return FleetEvent(at=now, agent=agent, instance=instance, what=what, reason=reason, by=by)


def about(
    change: InstanceChange, now: datetime, what: Happened, words: Iterable[str] = ()
) -> FleetEvent:
    """The event of a change of one instance; ``words`` say what is not in its kind."""
    return happening(now, what, change.agent, change.url, joined(words, change.reason), change.by)


def joined(words: Iterable[str], reason: str) -> str:
    """What was changed, and why."""
    return "; ".join(filter(None, (", ".join(words), reason)))
