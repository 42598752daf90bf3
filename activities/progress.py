"""How far a call has come, over attempts that different workers make.

The engine counts every dispatch of an activity as an attempt. Ours count when a request may have
been sent: a dispatch that finds the agent unavailable costs none, one whose worker was lost does.
What ended is kept in the activity's heartbeat details, which each attempt hands to the next.
"""

from typing import Any

from temporalio import activity

from orchestrator.models import AgentCall, Attempt, CallFailure, Progress

KEPT_ATTEMPTS = 20


class Course:
    """The course of one call until now, from within one dispatch."""

    def __init__(self, call: AgentCall) -> None:
        info = activity.info()
        begun = call.progress or Progress()
        details = info.heartbeat_details
        self.progress = Progress.model_validate(details[0]) if details else begun
        known = self.progress.made + self.progress.waits - begun.made - begun.waits
        self.lost = info.attempt - 1 - known
        """Dispatches that left no word: their worker was lost, perhaps after it had sent."""
        self.is_first = info.attempt == 1

    @property
    def number(self) -> int:
        """Of the attempt to be made now; the first is 1."""
        return self.progress.sent + self.lost + 1

    @property
    def spent(self) -> int:
        """How many of the attempts that a task may make are spent once this one is."""
        return self.progress.made + self.lost + 1

    @property
    def follows_lost(self) -> bool:
        """Whether the attempt before the one to be made now left no word."""
        attempts = self.progress.attempts
        return self.lost > 0 and (not attempts or attempts[-1].attempt != self.number - 1)

    def tried(self, agent: str) -> list[str]:
        """The instances of the agent that attempts were made at."""
        found = (each.instance for each in self.progress.attempts if each.agent == agent)
        return [instance for instance in found if instance is not None]

    def failure(self, attempt: Attempt | None = None, **what: Any) -> CallFailure:
        """The failure of a dispatch that made an attempt, or found that none may be made."""
        return self._failure(attempt, 1 if attempt else 0, 0, what)

    def wait(self, attempt: Attempt | None = None, **what: Any) -> CallFailure:
        """The failure of a dispatch that costs no attempt, though one may have been begun."""
        return self._failure(attempt, 0, 1, {"retryable": True} | what)

    def _failure(
        self, attempt: Attempt | None, made: int, waits: int, what: dict[str, Any]
    ) -> CallFailure:
        progress = Progress(
            sent=self.progress.sent + (attempt is not None),
            made=self.progress.made + made,
            waits=self.progress.waits + waits,
            attempts=self.with_attempt(attempt) if attempt else self.progress.attempts,
        )
        return CallFailure(progress=progress, attempts=progress.sent + self.lost, **what)

    def with_attempt(self, attempt: Attempt) -> tuple[Attempt, ...]:
        """The latest attempts, this one included."""
        return (*self.progress.attempts, attempt)[-KEPT_ATTEMPTS:]
