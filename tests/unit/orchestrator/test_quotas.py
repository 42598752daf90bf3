"""How much a tenant may start: what counts, what is given back, and when the engine is asked."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import cast

import pytest

from orchestrator.config import Quota
from orchestrator.errors import EngineBusy, EngineUnavailable, QueueFull, QuotaExceeded
from orchestrator.resilience.limiter import Decision
from orchestrator.security import quotas as module
from orchestrator.security.quotas import DAILY_SECONDS, RUNNING_SECONDS, Quotas
from orchestrator.shared_limits import SharedBuckets

pytestmark = pytest.mark.asyncio

SETTLE = 0.01


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are slept."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", SETTLE)


class Engine:
    """The engine's lists, and the clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.listed: Counter[str] = Counter()
        self.failure: Exception | None = None

    def clock(self) -> float:
        """The time, which moves by being asked."""
        self.now += SETTLE / 20
        return self.now

    async def running(self, tenant: str) -> int:
        """What the lists show."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        return self.listed[tenant]

    async def since(self, tenant: str, _: datetime) -> int:
        """The same."""
        return await self.running(tenant)


def quotas(engine: Engine, quota: Quota, shared: SharedBuckets | None = None) -> Quotas:
    """Those of each tenant."""
    return Quotas({"*": quota}, engine, shared, engine.clock)


RUNNING = Quota(running=2)


async def start(found: Quotas, tasks: int = 1, tenant: str = "acme") -> None:
    """Start so many, which go on."""
    async with found.admitted([tenant], tasks):
        cast("Engine", found._usage).listed[tenant] += tasks


async def refused(found: Quotas, tasks: int = 1) -> QuotaExceeded:
    """How so many are refused."""
    with pytest.raises(QuotaExceeded) as caught:
        await start(found, tasks)
    return caught.value


async def test_a_fresh_count_admits_without_asking() -> None:
    """The engine is asked for the first; what was started since is added to what it said."""
    engine = Engine()
    found = quotas(engine, Quota(running=3))
    for _ in range(3):
        await start(found)
    assert 1 == engine.asked


async def test_a_fresh_count_refuses_without_asking() -> None:
    """As long as it alone leaves no room; a tenant that goes on asking costs the engine nothing."""
    engine = Engine()
    engine.listed["acme"] = 2
    found = quotas(engine, RUNNING)
    for _ in range(3):
        assert "running" == (await refused(found)).policy
    assert 1 == engine.asked


@pytest.mark.parametrize(
    ("quota", "seconds"),
    [(RUNNING, RUNNING_SECONDS), (Quota(daily=2), DAILY_SECONDS)],
)
async def test_a_count_that_is_no_longer_fresh_is_made_anew(quota: Quota, seconds: float) -> None:
    """What has ended meanwhile makes room."""
    engine = Engine()
    engine.listed["acme"] = 2
    found = quotas(engine, quota)
    await refused(found)
    engine.now += seconds
    engine.listed["acme"] = 1
    await start(found)
    assert 2 == engine.asked


async def test_tasks_too_young_to_be_counted_are_waited_for() -> None:
    """They fill the quota until the lists can show them; by then they may have ended."""
    engine = Engine()
    found = quotas(engine, RUNNING)
    await start(found, 2)
    engine.listed["acme"] = 1
    began = engine.now
    await start(found)
    assert engine.now - began > SETTLE / 2
    assert engine.asked > 1


async def test_nobody_waits_for_them_longer_than_they_may_need() -> None:
    """Tasks whose start has not ended yet are no older after two such times."""
    engine = Engine()
    found = quotas(engine, RUNNING)
    async with found.admitted(["acme"], 2):
        began = engine.now
        await refused(found)
        assert engine.now - began <= 3 * SETTLE


async def test_a_start_that_takes_long_keeps_its_place() -> None:
    """A count that was made while it went on need not hold it."""
    engine = Engine()
    found = quotas(engine, Quota(running=1))
    async with found.admitted(["acme"]):
        engine.now += 10
    engine.now += RUNNING_SECONDS - SETTLE
    engine.listed["acme"] = 1
    await refused(found)


async def test_as_many_as_there_is_room_for_are_admitted_at_once() -> None:
    """And no more, however long the decision about another limit takes."""

    class Slow:
        async def try_take(self, *_: object) -> Decision | None:
            await asyncio.sleep(0)
            return None

    engine = Engine()
    limits = Quota(running=3, daily=1000, rate=1e6)
    found = quotas(engine, limits, cast("SharedBuckets", Slow()))
    # The first one counts; the others find that count fresh.
    await start(found)
    answers = await asyncio.gather(*(start(found) for _ in range(9)), return_exceptions=True)
    assert 2 == answers.count(None)


async def replay(found: Quotas) -> None:
    """Find what was started before."""
    async with found.admitted(["acme"]) as grant:
        assert grant is not None
        grant.replayed = True


async def fail(found: Quotas, error: Exception) -> None:
    """Start a task, which fails."""
    with pytest.raises(type(error)):
        async with found.admitted(["acme"]):
            raise error


@pytest.mark.parametrize(
    "attempt",
    [replay, lambda found: fail(found, QueueFull())],
    ids=["a replay", "a failed start"],
)
@pytest.mark.parametrize("quota", [RUNNING, Quota(daily=2), Quota(rate=1, burst=2)])
async def test_what_starts_nothing_counts_for_nothing(
    quota: Quota, attempt: Callable[[Quotas], Awaitable[None]]
) -> None:
    """By any quota."""
    found = quotas(Engine(), quota)
    for _ in range(5):
        await attempt(found)
    for _ in range(2):
        await start(found)


async def test_what_is_given_back_late_makes_no_room_twice() -> None:
    """A count that was made meanwhile holds none of it."""
    engine = Engine()
    found = quotas(engine, RUNNING)
    async with AsyncExitStack() as opened:
        grant = await opened.enter_async_context(found.admitted(["acme"]))
        assert grant is not None
        engine.now += 10
        engine.listed["acme"] = 1
        await start(found, 0)
        grant.replayed = True
    await start(found)
    await refused(found)


@pytest.mark.parametrize("quota", [RUNNING, Quota(daily=2), Quota(rate=1, burst=2)])
async def test_what_may_have_been_started_counts(quota: Quota) -> None:
    """The engine has not answered, and may have the task all the same."""
    engine = Engine()
    found = quotas(engine, quota)
    for _ in range(2):
        await fail(found, EngineUnavailable("no answer"))
        engine.listed["acme"] += 1
    await refused(found)


@pytest.mark.parametrize("quota", [RUNNING, Quota(daily=2), Quota(rate=1, burst=2)])
async def test_what_the_engine_was_not_asked_for_does_not_count(quota: Quota) -> None:
    """It has surely not been started."""
    engine = Engine()
    found = quotas(engine, quota)
    for _ in range(2):
        await fail(found, EngineBusy("no answer"))
    for _ in range(2):
        await start(found)
    await refused(found)


async def test_a_refusal_by_one_quota_leaves_the_others_as_they_were() -> None:
    """The places among those that run are free again."""
    engine = Engine()
    found = quotas(engine, Quota(running=2, daily=1))
    assert "daily" == (await refused(found, 2)).policy
    found.configure({"*": RUNNING})
    await start(found, 2)


async def test_an_engine_that_cannot_count_takes_no_place() -> None:
    """Its failure is the answer, and the next attempt asks again."""
    engine = Engine()
    engine.failure = EngineUnavailable("no answer")
    found = quotas(engine, RUNNING)
    with pytest.raises(EngineUnavailable):
        await start(found)
    engine.failure = None
    await start(found, 2)


async def test_all_who_wait_for_a_count_are_told_of_its_failure_at_once() -> None:
    """Nobody waits for those before to fail one after another; the next one asks again."""
    engine = Engine()
    engine.failure = EngineUnavailable("no answer")
    found = quotas(engine, RUNNING)
    answers = await asyncio.gather(*(start(found) for _ in range(20)), return_exceptions=True)
    assert ([engine.failure] * 20, 1) == (answers, engine.asked)
    engine.failure = None
    await start(found)
    assert 2 == engine.asked


async def test_tenants_have_quotas_of_their_own_and_batches_of_several_none() -> None:
    """What one has started is no other's."""
    found = quotas(Engine(), Quota(running=1))
    await start(found)
    await start(found, tenant="globex")
    async with found.admitted(["acme", "globex"]) as grant:
        assert grant is None
    await refused(found)


async def test_a_grant_tells_what_is_left() -> None:
    """By this one counted; when a day's tasks are back is known, of those that run it is not."""
    engine = Engine()
    engine.listed["acme"] = 3
    found = quotas(engine, Quota(running=10, daily=20))
    async with found.admitted(["acme"], 2) as grant:
        assert grant is not None
        running, daily = grant.allowances
    assert ("running", 10, 5, None) == (
        running.policy,
        running.most,
        running.remaining,
        running.reset,
    )
    now = datetime.now(UTC)
    rest = 24 * 3600 - (now.hour * 3600 + now.minute * 60 + now.second)
    assert ("daily", 20, 15) == (daily.policy, daily.most, daily.remaining)
    assert daily.reset is not None
    assert abs(daily.reset - rest) < 60 or rest < 60
