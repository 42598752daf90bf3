"""The engine's own limits on the agents' queues."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit as EngineRateLimit
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    UpdateTaskQueueConfigRequest,
)
from temporalio.client import Client

from orchestrator.config import Agent, AgentRateLimit, Settings, Temporal
from orchestrator.engine.queue_limits import REASON, QueueLimits
from orchestrator.fleet.records import AgentRecord, FleetSnapshot, LimitRecord
from orchestrator.limits import RateLimits
from orchestrator.models import LimitMode
from orchestrator.routing import agent_queue
from tests.support.engine import client_of
from tests.support.stack import eventually

QUEUE = LimitMode.QUEUE
TIMEOUT = timedelta(seconds=10)


@pytest.fixture
def agent() -> str:
    """An agent that no other test knows."""
    return f"agent-{uuid4()}"


def limits_of(agent: str, limit: AgentRateLimit | None = None) -> RateLimits:
    """The limits of a configuration with that one agent."""
    return RateLimits(Settings(agents={agent: Agent(rate_limit=limit or AgentRateLimit())}))


def ordered(agent: str, limits: LimitRecord) -> FleetSnapshot:
    """What the fleet says after an operator's order."""
    return FleetSnapshot(version=1, agents={agent: AgentRecord(limits=limits)})


async def present(client: Client, agent: str) -> tuple[float | None, str]:
    """Calls a second that the queue is limited to, and for which reason."""
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=agent_queue(agent)),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_config=True,
        ),
        timeout=TIMEOUT,
    )
    limit = answer.config.queue_rate_limit
    rate = limit.rate_limit.requests_per_second if limit.HasField("rate_limit") else None
    return rate, limit.metadata.reason


async def set_by_hand(client: Client, agent: str, rate: float) -> None:
    """As an operator sets a limit with the engine's own command line."""
    await client.workflow_service.update_task_queue_config(
        UpdateTaskQueueConfigRequest(
            namespace=client.namespace,
            task_queue=agent_queue(agent),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            update_queue_rate_limit=UpdateTaskQueueConfigRequest.RateLimitUpdate(
                rate_limit=EngineRateLimit(requests_per_second=rate), reason="by hand"
            ),
        ),
        timeout=TIMEOUT,
    )


async def test_a_limit_of_mode_queue_is_the_engines(client: Client, agent: str) -> None:
    """120 a minute are 2 a second; written once."""
    limits = limits_of(agent, AgentRateLimit(rate=120, mode=QUEUE))
    with capture_logs() as lines:
        failed = [await QueueLimits(client, limits, 10).apply() for _ in range(2)]

    assert [(), ()] == failed
    assert (2.0, REASON) == await present(client, agent)
    assert [("queue_limit_set", 2.0)] == [
        (line["event"], line["calls_per_second"]) for line in lines
    ]


async def test_a_rate_that_no_float_holds_is_written_once(client: Client, agent: str) -> None:
    """The engine keeps fewer bits of 100 / 60 than we do."""
    limits = limits_of(agent, AgentRateLimit(rate=100, mode=QUEUE))
    with capture_logs() as lines:
        for _ in range(2):
            await QueueLimits(client, limits, 10).apply()
    assert 1 == len(lines)


async def test_a_limit_of_mode_reject_is_not(client: Client, agent: str) -> None:
    """It is kept at admission."""
    await QueueLimits(client, limits_of(agent, AgentRateLimit(rate=120)), 10).apply()
    assert (None, "") == await present(client, agent)


async def test_what_is_wanted_no_more_is_taken_off(client: Client, agent: str) -> None:
    """By another process, as after a new configuration."""
    wanted = limits_of(agent, AgentRateLimit(rate=120, mode=QUEUE))
    await QueueLimits(client, wanted, 10).apply()
    await QueueLimits(client, limits_of(agent), 10).apply()
    assert (await present(client, agent))[0] is None


async def test_a_limit_set_by_hand_stays(client: Client, agent: str) -> None:
    """Unless the agent has one of ours."""
    await set_by_hand(client, agent, 3)
    await QueueLimits(client, limits_of(agent), 10).apply()
    before = await present(client, agent)

    limits = limits_of(agent, AgentRateLimit(rate=60, mode=QUEUE))
    await QueueLimits(client, limits, 10).apply()

    assert [(3.0, "by hand"), (1.0, REASON)] == [before, await present(client, agent)]


async def test_operators_orders_follow_at_once(client: Client, agent: str) -> None:
    """A change of the fleet's word is written; the same word again is not."""
    limits = QueueLimits(client, limits_of(agent), 10)
    running = asyncio.create_task(limits.run())

    async def is_limited_to(rate: float | None) -> None:
        async def reached() -> bool:
            return (await present(client, agent))[0] == rate

        await eventually(reached, what=f"a limit of {rate}")

    try:
        for rate, expected in ((120.0, 2.0), (240.0, 4.0), (None, None)):
            record = LimitRecord(rate=rate, mode=QUEUE if rate else None)
            limits.sync(ordered(agent, record))
            await is_limited_to(expected)
        limits.sync(ordered(agent, LimitRecord()))
        assert not limits._changed.is_set()
    finally:
        running.cancel()


async def test_a_failure_is_said_and_tried_again(engine: Temporal, agent: str) -> None:
    """The engine did not answer in time; then it did."""
    client = await client_of(engine)
    wanted = limits_of(agent, AgentRateLimit(rate=120, mode=QUEUE))
    limits = QueueLimits(client, wanted, timeout=1e-6, retry_seconds=0.01)
    with capture_logs() as lines:
        running = asyncio.create_task(limits.run())

        async def failed() -> bool:
            return len(lines) > 1

        await eventually(failed, what="a second failure")
        limits._timeout = TIMEOUT

        async def reached() -> bool:
            return (await present(client, agent))[0] == 2

        await eventually(reached, what="the limit")
        running.cancel()

    assert ("queue_limit_failed", agent) == (lines[0]["event"], lines[0]["agent"])
    assert "queue_limit_set" == lines[-1]["event"]
