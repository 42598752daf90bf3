"""How an item of a batch has ended, as its chunk tells."""

from datetime import UTC, datetime

from orchestrator.batches import ItemOutcome
from orchestrator.models import Attempt, TaskState
from orchestrator.transports import AgentResponse

OUTCOME_BYTES = 300
"""What an outcome takes beside its result or error."""


def completed(
    position: int, response: AgentResponse, number: int, instance: str, seconds: float
) -> ItemOutcome:
    """The agent has answered, at the attempt of that number."""
    return ItemOutcome(
        position=position,
        state=TaskState.COMPLETED,
        at=datetime.now(UTC),
        result=response.body,
        attempt=number,
        instance=instance,
        status=response.status,
        seconds=round(seconds, 6),
    )


def failed(
    position: int, kind: str, text: str, attempt: Attempt | None, *, dead_letter: bool
) -> ItemOutcome:
    """It will not be tried again; ``attempt`` is the last, if any was made."""
    return ItemOutcome(
        position=position,
        state=TaskState.FAILED,
        at=datetime.now(UTC),
        error=text,
        error_type=kind,
        dead_letter=dead_letter,
        attempt=attempt.attempt if attempt else None,
        instance=attempt.instance if attempt else None,
        status=attempt.status if attempt else None,
        seconds=attempt.seconds if attempt else None,
    )


def cancelled(position: int) -> ItemOutcome:
    """Nobody wants it any more."""
    return ItemOutcome(position=position, state=TaskState.CANCELLED, at=datetime.now(UTC))
