"""How the receivers of a batch's items are told, where the worker that was to do it is lost."""

import asyncio
from contextlib import suppress

from temporalio import activity
from temporalio.client import Client

from orchestrator.batches import BatchTally
from orchestrator.callbacks import START_CALLBACKS, ItemCallbacks
from tests.workflows.agents_stage import idle
from tests.workflows.batch_stage import numbered, start, tally_of, workflows

SOON_SECONDS = 60.0
"""Long before the time is up that the starts of many callbacks may take."""


class Lost:
    """What starts callbacks; the first time it is heard of no more, as if its worker was killed."""

    def __init__(self) -> None:
        self.asked: list[ItemCallbacks] = []

    @activity.defn(name=START_CALLBACKS)
    async def start_callbacks(self, items: ItemCallbacks) -> None:
        """Keeps what it is given."""
        self.asked.append(items)
        if len(self.asked) == 1:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


async def test_another_worker_tells_them_soon(client: Client) -> None:
    """And the batch, which waits for that, ends."""
    starts = Lost()
    async with idle(client) as stage, workflows(stage, starts.start_callbacks):
        tasks = numbered(stage, 1)
        tasks[0]["callback_url"] = "https://receiver.example/"
        async with stage.worker(), asyncio.timeout(SOON_SECONDS):
            tally = await tally_of(await start(stage, tasks))
    assert BatchTally(total=1, completed=1) == tally
    assert [[0], [0]] == [[end.position for end in each.ends] for each in starts.asked]
