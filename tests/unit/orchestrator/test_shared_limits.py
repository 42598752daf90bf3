"""Token buckets in a real Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from structlog.testing import capture_logs

from orchestrator import shared_limits
from orchestrator.config import RateLimiting, Settings
from orchestrator.errors import StartupError
from orchestrator.models import LimitMode, RateLimit
from orchestrator.resilience.limiter import Decision
from orchestrator.shared_limits import REST_SECONDS, SharedBuckets
from tests.support.redis import RedisServer, redis_server
from tests.support.stack import eventually

SLOW = RateLimit(rate=0.6, burst=5, mode=LimitMode.REJECT)
"""One in 100 seconds: nothing comes back while a test runs."""


class Clock:
    """Of the process, moved by the test; Redis has its own."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The server of this module."""
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


def settings(url: str) -> Settings:
    """A configuration whose limits are shared."""
    return Settings(rate_limiting=RateLimiting(redis=SecretStr(url)))


def buckets_of(url: str, clock: Clock | None = None) -> SharedBuckets:
    """The buckets of one process."""
    found = SharedBuckets.of(settings(url))
    assert found is not None
    if clock is not None:
        found._clock = clock
    return found


@pytest_asyncio.fixture
async def buckets(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SharedBuckets]:
    """The buckets of a process that waits for Redis however busy this machine is."""
    monkeypatch.setattr(shared_limits, "ANSWER_SECONDS", 20)
    opened = buckets_of(server.url)
    yield opened
    await opened.close()


async def answered(buckets: SharedBuckets, agent: str, limit: RateLimit = SLOW) -> Decision:
    """A decision of Redis itself."""
    found = await buckets.try_take(agent, limit)
    assert found is not None
    return found


def test_without_redis_there_are_none() -> None:
    """The default asks nobody."""
    assert SharedBuckets.of(Settings()) is None


def test_a_wrong_url_is_told_without_its_password() -> None:
    """At the start, in one line."""
    with pytest.raises(StartupError, match=r"rate_limiting\.redis cannot be used") as caught:
        SharedBuckets.of(settings("redis://:s314159@host:port"))
    assert "314159" not in str(caught.value)


async def test_a_burst_is_shared_by_two_processes(
    buckets: SharedBuckets, server: RedisServer
) -> None:
    """Together they get no more than one would."""
    other = buckets_of(server.url)
    decisions = [await answered(each, "burst") for each in (buckets, other) * 4]
    await other.close()

    assert [True] * 5 + [False] * 3 == [each.allowed for each in decisions]
    assert [4, 3, 2, 1, 0, 0, 0, 0] == [each.remaining for each in decisions]
    assert 99 < decisions[-1].retry_after <= 100
    assert 499 < decisions[-1].full_after <= 500


async def test_simultaneous_takes_are_atomic(buckets: SharedBuckets) -> None:
    """Forty at once get as many tokens as there are."""
    await answered(buckets, "atomic")

    async def taken() -> bool:
        return (await answered(buckets, "atomic")).allowed

    assert 4 == sum(await asyncio.gather(*(taken() for _ in range(40))))


async def test_a_token_given_back_is_there_for_all(buckets: SharedBuckets) -> None:
    """One for each, and never more than the burst."""
    for _ in range(5):
        await answered(buckets, "refund")
    await buckets.give_back("refund", SLOW)
    assert [True, False] == [(await answered(buckets, "refund")).allowed for _ in range(2)]

    for _ in range(9):
        await buckets.give_back("refund", SLOW)
    looked = await buckets.look("refund", SLOW)
    assert looked is not None
    assert 5 == looked.remaining


async def test_looking_takes_nothing(buckets: SharedBuckets) -> None:
    """And makes no key."""
    for _ in range(3):
        looked = await buckets.look("looked at", SLOW)
        assert looked is not None
        assert (True, 5) == (looked.allowed, looked.remaining)
    assert 0 == await buckets._redis.exists("orchestrator:default:limit:looked at")


async def test_tokens_come_back_and_keys_go_away(buckets: SharedBuckets) -> None:
    """At 20 a second; a bucket that is full again is forgotten."""
    fast = RateLimit(rate=1200, burst=1, mode=LimitMode.REJECT)
    await answered(buckets, "fast", fast)
    began = time.monotonic()

    async def another() -> bool:
        return (await answered(buckets, "fast", fast)).allowed

    await eventually(another)
    assert time.monotonic() - began > 0.02
    assert 0 < await buckets._redis.pttl("orchestrator:default:limit:fast") <= 1050


async def test_a_smaller_burst_counts_at_once(buckets: SharedBuckets) -> None:
    """Tokens over it are lost."""
    await answered(buckets, "smaller")
    smaller = SLOW.model_copy(update={"burst": 2})
    decisions = [await answered(buckets, "smaller", smaller) for _ in range(3)]
    assert [True, True, False] == [each.allowed for each in decisions]


async def test_a_redis_that_hangs_is_asked_once_a_second(
    tmp_path: Path,
) -> None:
    """Soon given up, then left alone; said once, and once more when it is back."""
    clock = Clock()
    with redis_server(tmp_path) as server, capture_logs() as lines:
        buckets = buckets_of(server.url, clock)
        server.hang()
        began = time.monotonic()
        first = await buckets.try_take("agent", SLOW)
        waited = time.monotonic() - began
        at_rest = [await buckets.try_take("agent", SLOW) for _ in range(1000)]
        clock.now += REST_SECONDS
        still = await buckets.try_take("agent", SLOW)
        server.go_on()
        not_yet = await buckets.try_take("agent", SLOW)

        async def back() -> Decision | None:
            clock.now += REST_SECONDS
            return await buckets.try_take("agent", SLOW)

        decision = await eventually(back, what="an answer of Redis")
        await buckets.close()

    assert [None] * 1003 == [first, *at_rest, still, not_yet]
    assert 0.05 < waited < 2
    assert decision.allowed
    assert ["rate_limits_not_shared", "rate_limits_shared_again"] == [
        line["event"] for line in lines
    ]


async def test_a_redis_that_is_not_there_refuses_nobody() -> None:
    """The caller goes by its own bucket."""
    buckets = buckets_of("redis://127.0.0.1:1/0")
    with capture_logs() as lines:
        found = await buckets.try_take("agent", SLOW)
        await buckets.give_back("agent", SLOW)
        await buckets.close()
    assert (None, 1) == (found, len(lines))


async def test_a_cancellation_at_any_moment_is_heard(buckets: SharedBuckets) -> None:
    """Also in that in which Redis has just taken the request: whoever asked goes on no further."""

    async def take() -> None:
        for _ in range(3):
            await buckets.try_take("agent", SLOW)
        await asyncio.Event().wait()

    await buckets.try_take("agent", SLOW)
    for moment in range(40):
        takes = [asyncio.create_task(take()) for _ in range(10)]
        for _ in range(moment):
            await asyncio.sleep(0)
        for each in takes:
            each.cancel()
        _, deaf = await asyncio.wait(takes, timeout=10)
        assert not deaf
