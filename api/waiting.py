"""Answering requests that wait: as soon as there is an end, or as the process stops."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from api.dependencies import Services

Found = TypeVar("Found")


async def watched(
    services: Services, look: Callable[[float], Coroutine[Any, Any, Found]], wait: float
) -> Found:
    """What ``look`` finds when it has ended, when the wait is over, or when the process stops.

    Args:
        services: tell that the process stops.
        look: looks at something; with seconds, as soon as that has ended, or then.
        wait: seconds; 0 looks at once.
    """
    if not wait:
        return await look(0)
    watching = asyncio.create_task(look(wait))
    stopping = asyncio.create_task(services.process.stopping.wait())
    await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not watching.done():
        watching.cancel()
        return await look(0)
    return await watching
