"""Signs of life of activities that tell nothing else on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

HEARTBEAT_SECONDS = 1.0
"""Shorter calls never heartbeat, and so cost the engine nothing beyond their two events."""


@asynccontextmanager
async def signs_of_life() -> AsyncIterator[None]:
    """Heartbeats within the block: another worker takes over soon from one that is lost.

    They are also how a cancellation gets here.
    """

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
