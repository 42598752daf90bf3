"""A connection to a broker that is made anew whenever it is lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

from orchestrator.errors import BrokerUnavailable
from orchestrator.telemetry.logging import get_logger

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
PATIENCE_SECONDS = 10.0
"""How long a broker may take to answer while a session is opened."""

log = get_logger(__name__)


async def keep_going(
    what: str, session: Callable[[Callable[[], None]], Awaitable[None]]
) -> NoReturn:
    """Hold one session after the other, for ever, with longer pauses while none can be opened.

    Args:
        what: the session is for, in the log.
        session: ends by BrokerUnavailable; calls its argument once it works.
    """
    failures = 0

    def opened() -> None:
        nonlocal failures
        failures = 0
        log.info("broker_connected", purpose=what)

    while True:
        try:
            await session(opened)
        except BrokerUnavailable as error:
            failures += 1
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 10))
            log.warning(
                "broker_lost", purpose=what, error=str(error), next_try_seconds=round(pause, 1)
            )
            await asyncio.sleep(pause * (1 - 0.2 * random.random()))  # noqa: S311 - only spread
