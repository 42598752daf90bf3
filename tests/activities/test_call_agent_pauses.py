"""How long the engine waits before the next attempt."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from orchestrator.models import BlockedBy
from tests.activities.stage import calling, failure_in
from tests.support.agents import Agent, Reply
from tests.support.plans import call, retry


async def pause(reply: Reply, attempt: int = 1, chance: float = 0.5, **plan: float) -> float:
    """The seconds that a failed attempt asks the engine to wait."""
    async with Agent(reply) as agent, calling(agent.url, chance=chance) as caller:
        error = await caller.failure(call(retry=retry(**({"max_attempts": 1000} | plan))), attempt)
    assert error.next_retry_delay is not None
    found = failure_in(error)
    assert (found.pause or 0.001, BlockedBy.RETRY_BACKOFF) == (
        error.next_retry_delay.total_seconds(),
        found.blocked_by,
    )
    return error.next_retry_delay.total_seconds()


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8)])
async def test_pauses_double_from_a_second(attempt: int, seconds: float) -> None:
    """1, 2, 4 s with the shipped configuration."""
    assert seconds == await pause(Reply(status=500), attempt)


async def test_pauses_grow_no_further_than_the_maximum() -> None:
    """However many attempts there have been."""
    assert 60 == await pause(Reply(status=500), attempt=900)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 1.8), (0.5, 2.0), (1.0, 2.2)])
async def test_jitter_spreads_a_backoff_to_both_sides(chance: float, seconds: float) -> None:
    """A tenth of two seconds, less or more."""
    assert seconds == pytest.approx(await pause(Reply(status=500), 2, chance, jitter=0.1))


@pytest.mark.parametrize("status", [429, 503, 500, 408])
async def test_a_retry_after_in_seconds_is_honoured(status: int) -> None:
    """Whatever the retryable status it came with."""
    assert 17 == await pause(Reply(status=status, headers={"Retry-After": "17"}))


async def test_a_retry_after_as_a_date_is_honoured() -> None:
    """The pause ends at that date, to the second that HTTP dates have."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    assert 40 == pytest.approx(await pause(Reply(status=503, headers={"Retry-After": date})), abs=2)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 20.0), (0.5, 21.0), (1.0, 22.0)])
async def test_jitter_never_shortens_a_retry_after(chance: float, seconds: float) -> None:
    """It is spread upwards only."""
    reply = Reply(status=429, headers={"Retry-After": "20"})
    assert seconds == pytest.approx(await pause(reply, chance=chance, jitter=0.1))


async def test_a_retry_after_is_clamped() -> None:
    """An agent cannot park a task for days."""
    reply = Reply(status=429, headers={"Retry-After": "86400"})
    assert 300 == await pause(reply)


@pytest.mark.parametrize("value", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_a_retry_after_of_now_is_almost_no_pause(value: str) -> None:
    """But not zero, which the engine would take for none given."""
    assert 0.001 == await pause(Reply(status=503, headers={"Retry-After": value}))


@pytest.mark.parametrize("value", ["soon", "-5", "", "1.5"])
async def test_a_retry_after_that_cannot_be_read_is_no_retry_after(value: str) -> None:
    """The backoff holds instead."""
    assert 1 == await pause(Reply(status=503, headers={"Retry-After": value}))
