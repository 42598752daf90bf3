"""Hundreds of agents and several workers: each worker polls the task queue of each agent."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.engine.connect import connect
from tests.support.engine import development_server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.own_topology("it has an engine of its own"),
]

POLLS = 1500
"""More than the engine takes by default."""
POLL_TIME = timedelta(seconds=5)


async def refused(client: Client, number: int) -> bool:
    """Whether a poll of a queue of its own is sent away instead of being left to wait."""
    request = PollActivityTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=f"agent.number_{number}")
    )
    try:
        await client.workflow_service.poll_activity_task_queue(request, timeout=POLL_TIME)
    except RPCError as error:
        return error.status is RPCStatusCode.RESOURCE_EXHAUSTED
    return False


async def test_the_engine_lets_three_workers_poll_for_five_hundred_agents(tmp_path: Path) -> None:
    """As many polls as that wait at the same time, and none is refused."""
    with development_server(tmp_path) as temporal:
        client = await connect(temporal, "test")
        found = await asyncio.gather(*(refused(client, number) for number in range(POLLS)))
    assert sum(found) == 0
