"""What each agent's tasks came to, counted from the engine's own list."""

import asyncio
import socket
import time
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from orchestrator.engine import search_attributes
from orchestrator.engine import traffic as traffic_module
from orchestrator.engine.traffic import BUCKET_SECONDS, BUCKETS, Traffic
from orchestrator.errors import EngineUnavailable
from orchestrator.routing import WORKFLOW_TYPE
from tests.support.stack import eventually


class Clock:
    """The time of day, which may be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        """Now."""
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    """Of the traffic."""
    return Clock()


@pytest.fixture
def traffic(client: Client, clock: Clock) -> Traffic:
    """Of all agents."""
    return Traffic(client, 10, clock)


@pytest.fixture
def agent() -> str:
    """One that no other test knows."""
    return f"agent-{uuid4()}"


async def started(client: Client, agent: str) -> str:
    """The id of a task that nobody works on."""
    task_id = str(uuid4())
    pair = SearchAttributePair(search_attributes.AGENT, agent)
    await client.start_workflow(
        WORKFLOW_TYPE,
        id=task_id,
        task_queue=f"nobody-{uuid4()}",
        search_attributes=TypedSearchAttributes([pair]),
    )
    return task_id


async def ended(client: Client, agent: str, times: int = 1) -> None:
    """Tasks that were ended by an operator, as the lists know."""
    for _ in range(times):
        task_id = await started(client, agent)
        await client.get_workflow_handle(task_id).terminate()

        async def listed(task_id: str = task_id) -> bool:
            query = f"WorkflowId = '{task_id}' AND ExecutionStatus = 'Terminated'"
            return (await client.count_workflows(query)).count == 1

        await eventually(listed)


async def counted(traffic: Traffic, agent: str) -> tuple[int, ...]:
    """The failures of an agent, the oldest bucket first."""
    found = (await traffic.get()).agents.get(agent)
    return found.failed if found else ()


async def test_what_ended_is_counted_for_its_agent(
    client: Client, traffic: Traffic, agent: str
) -> None:
    """In one of the newest buckets; a task that has not ended is in none."""
    await started(client, agent)
    await ended(client, agent, 2)

    view = await traffic.get()

    found = view.agents[agent]
    assert (BUCKETS, BUCKETS, BUCKETS) == tuple(
        map(len, (found.completed, found.failed, found.seconds))
    )
    assert (0, 2, {None}) == (sum(found.completed), sum(found.failed), set(found.seconds))
    assert 2 == sum(found.failed[-3:])
    assert view.complete


async def test_a_minute_later_it_is_six_buckets_further(
    client: Client, traffic: Traffic, clock: Clock, agent: str
) -> None:
    """What was counted is kept, and not counted twice."""
    await ended(client, agent)
    before = await counted(traffic, agent)
    clock.ahead = 60
    after = await counted(traffic, agent)

    steps = 60 // BUCKET_SECONDS
    # The clock may have gone on to the next bucket in between.
    assert before.index(1) - after.index(1) in {steps, steps + 1}
    assert 1 == sum(after)


async def test_what_ends_later_is_added(
    client: Client, traffic: Traffic, clock: Clock, agent: str
) -> None:
    """At the next look, whose last buckets are counted anew."""
    await ended(client, agent)
    first = await counted(traffic, agent)
    await ended(client, agent)
    clock.ahead = 5

    assert (1, 2) == (sum(first), sum(await counted(traffic, agent)))


async def test_after_ten_minutes_it_is_forgotten(
    client: Client, traffic: Traffic, clock: Clock, agent: str
) -> None:
    """The agent is left out then."""
    await ended(client, agent)
    await traffic.get()
    clock.ahead = BUCKETS * BUCKET_SECONDS + 1

    assert agent not in (await traffic.get()).agents


async def test_who_comes_soon_after_gets_the_same_answer(traffic: Traffic) -> None:
    """Ten at once have the engine asked once."""
    found = await asyncio.gather(*(traffic.get() for _ in range(10)))
    assert 1 == len({each.as_of for each in found})


async def test_all_who_ask_an_engine_that_hangs_are_told_at_once() -> None:
    """Nobody waits for those before to fail one after another."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        traffic = Traffic(await Client.connect(f"{host}:{port}", lazy=True), 0.5)
        answers = await asyncio.gather(*(traffic.get() for _ in range(10)), return_exceptions=True)
    assert 1 == len(set(answers))
    assert isinstance(answers[0], EngineUnavailable)


async def test_more_than_is_counted_is_told(
    client: Client,
    traffic: Traffic,
    clock: Clock,
    agent: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest are counted, and the answer says that there are more while it shows that time."""
    monkeypatch.setattr(traffic_module, "PAGE_SIZE", 1)
    monkeypatch.setattr(traffic_module, "MAX_PAGES", 2)
    await ended(client, agent, 3)
    short = await traffic.get()
    clock.ahead = 60
    still = await traffic.get()
    clock.ahead = BUCKETS * BUCKET_SECONDS + 10
    over = await traffic.get()

    assert (False, 2) == (short.complete, sum(short.agents[agent].failed))
    assert [False, True] == [still.complete, over.complete]
