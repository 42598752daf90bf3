"""What becomes of one message: acknowledged, buried, or kept until its task can be started.

A message whose task cannot be started now is kept by the process that has it, so a full prefetch
is what stops the flow. After a while it goes to the end of the queue, so that the messages behind
it, which may be for other agents, have their turn.
"""

import asyncio
import random
import time
from typing import Protocol

from orchestrator.errors import MessageDelayed, MessageRefused
from orchestrator.messaging import Message, Take
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger

HOLD_SECONDS = 60.0
"""How long a message is kept before others have their turn."""
KEEP_SECONDS = 5.0
"""How often the broker is told that a message is still kept."""
LEAST_PAUSE_SECONDS = 0.5
JITTER = 0.2

log = get_logger(__name__)


class Delivery(Protocol):
    """A message that the broker has handed out, and what can be done with it."""

    message: Message

    async def done(self) -> None:
        """The engine has the task: the broker may forget the message."""
        ...

    async def bury(self, refused: MessageRefused) -> None:
        """Move it to the dead letters with the reason, and answer who waits for a reply."""
        ...

    async def keep(self) -> None:
        """Tell the broker that it is still in hand."""
        ...

    async def postpone(self) -> bool:
        """Move it to the end of the queue; False where that is full."""
        ...


async def settle(delivery: Delivery, take: Take) -> None:
    """Have the message's task started, however long that takes, or bury the message."""
    until = time.monotonic() + HOLD_SECONDS
    while True:
        try:
            await take(delivery.message)
        except MessageRefused as refused:
            await delivery.bury(refused)
            metrics.message("refused")
            log.warning(
                "message_refused",
                message_id=delivery.message.id,
                status=refused.status,
                reason=str(refused),
            )
            return
        except MessageDelayed as delayed:
            if time.monotonic() >= until and await delivery.postpone():
                metrics.message("postponed")
                return
            await _wait(delivery, delayed.seconds)
        else:
            await delivery.done()
            metrics.message("accepted")
            return


async def _wait(delivery: Delivery, seconds: float) -> None:
    """Wait as long as was asked for and a little more, so that not all come again at once."""
    # Which is no secret.
    left = max(LEAST_PAUSE_SECONDS, min(seconds, HOLD_SECONDS)) * (1 + JITTER * random.random())  # noqa: S311
    end = time.monotonic() + left
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, KEEP_SECONDS))
        await delivery.keep()
