"""What is admitted of batches, whose items wait in them."""

import pytest

from orchestrator.config import ErrorRecovery
from orchestrator.errors import AgentUnavailable, QueueFull
from orchestrator.fleet.records import AgentRecord, FleetSnapshot, LimitRecord
from orchestrator.models import LimitMode
from tests.support.plans import AGENT, plan
from tests.unit.orchestrator.admission_house import LAST, SPARE, House, fallbacks, limited


async def test_a_batch_takes_no_tokens_and_no_places() -> None:
    """However large it is."""
    house = House(queue=2, **limited(burst=2))
    wanted = plan()
    for _ in range(5):
        assert (wanted, wanted) == await house.admission.admitted_batch([wanted, wanted])
    assert 2 == await house.most()


async def test_an_empty_bucket_refuses_no_batch() -> None:
    """It paces it."""
    house = House(**limited(burst=1))
    await house.admit()
    assert 1 == len(await house.admission.admitted_batch([plan()]))


async def test_a_full_queue_refuses_a_batch() -> None:
    """And its own items are not counted."""
    house = House(waiting=2, queue=2)
    with pytest.raises(QueueFull):
        await house.admission.admitted_batch([plan()])
    house.engine.waiting = 1
    await house.engine.renew()
    for _ in range(3):
        await house.admission.admitted_batch([plan()])


async def test_an_agent_that_is_away_refuses_the_whole() -> None:
    """As long as it has no fallback, which goes before it."""
    house = House()
    house.trip(AGENT)
    safe, other = plan(fallbacks=fallbacks(SPARE)), plan(**dict(fallbacks(LAST)[0]))

    with pytest.raises(AgentUnavailable, match="Agent 'reader' is currently unavailable"):
        await house.admission.admitted_batch([other, plan()])
    found = await house.admission.admitted_batch([other, safe])

    assert [LAST, SPARE] == [each.agent for each in found]


async def test_it_may_be_accepted_all_the_same() -> None:
    """``when_unavailable: queue``: the items wait."""
    house = House(error_recovery=ErrorRecovery(when_unavailable="queue"))
    house.trip(AGENT)
    assert [AGENT] == [each.agent for each in await house.admission.admitted_batch([plan()])]


async def test_the_limits_in_force_say_who_is_metered() -> None:
    """Those of the configuration, and over them the operators'."""
    house = House(**limited(mode=LimitMode.QUEUE))
    before = [house.admission.is_metered(name) for name in (AGENT, SPARE)]
    record = AgentRecord(limits=LimitRecord(mode=LimitMode.REJECT))
    house.admission.sync(FleetSnapshot(version=1, agents={AGENT: record}))

    assert [True, False] == before
    assert not house.admission.is_metered(AGENT)
