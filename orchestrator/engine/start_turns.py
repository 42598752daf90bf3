"""How many starts of single tasks each API process asks the embedded server for at a time."""

import asyncio
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator.engine.embedded import STARTS_AT_ONCE
from orchestrator.engine.queues import describe_queue
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.turns import Turns
from orchestrator.errors import EngineUnavailable
from orchestrator.routing import WORKFLOW_QUEUE

LOOK_SECONDS = 5.0


async def share_starts(client: Client, turns: Turns, part: str, timeout: float) -> None:
    """Keep this process to its share of the starts, by how many of its kind there are.

    Each of them polls the workflow queue under a name that begins with its ``part``, and the engine
    tells who does; of one that has crashed it does for some minutes more.
    """
    deadline = timedelta(seconds=timeout)
    while True:
        try:
            async with engine_call(deadline):
                queue = await describe_queue(
                    client, WORKFLOW_QUEUE, deadline, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
                )
        except (EngineUnavailable, RPCError):
            pass  # the share stays as it was
        else:
            processes = sum(name.startswith(f"{part}@") for name in queue.takers)
            turns.resize(max(1, STARTS_AT_ONCE // max(1, processes)))
        await asyncio.sleep(LOOK_SECONDS)
