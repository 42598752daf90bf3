"""What goes on beside a process's main work: it ends with it, and never unheard."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from orchestrator.errors import StartupError
from orchestrator.parts import in_background


@pytest_asyncio.fixture
async def stop() -> AsyncIterator[asyncio.Event]:
    """Set by SIGTERM, as in every process."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, event.set)
    yield event
    loop.remove_signal_handler(signal.SIGTERM)


async def breaks() -> None:
    """Does not go on for long."""
    raise ZeroDivisionError("nothing is left")


async def test_a_work_that_breaks_stops_the_process(stop: asyncio.Event) -> None:
    """The log names it, the process stops as by a signal, and does not end as if all were well."""
    with capture_logs() as lines, pytest.raises(StartupError, match="breaks has broken"):
        async with in_background(breaks()):
            await asyncio.wait_for(stop.wait(), 20)
    assert [("background_work_broke", "breaks", True)] == [
        (line["event"], line["work"], line["exc_info"]) for line in lines
    ]


async def test_works_end_with_the_block(stop: asyncio.Event) -> None:
    """One was done before, one is cut off; neither is a reason to stop."""
    begun, cut_off = asyncio.Event(), asyncio.Event()

    async def done() -> None:
        begun.set()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()

    async with in_background(done(), endless()):
        await asyncio.wait_for(begun.wait(), 20)
    assert (True, False) == (cut_off.is_set(), stop.is_set())
