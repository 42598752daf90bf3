"""What waits in the agents' task queues, and in which order the engine gives it out."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.common import Priority

from orchestrator.routing import agent_queue
from orchestrator.values import MAX_PRIORITY

_PARALLEL_CALLS = 8


def engine_priority(priority: int, tenant: str, weight: float = 1.0) -> Priority:
    """Our 5 (urgent) to 1 as the engine's 1 (first) to 5; tenants share each level by weight."""
    return Priority(
        priority_key=MAX_PRIORITY + 1 - priority,
        fairness_key=tenant,
        fairness_weight=None if weight == 1 else weight,
    )


@dataclass(frozen=True)
class QueueState:
    """What waits in one queue, by our priority, and the names of those who take from it."""

    backlog: Mapping[int, int]
    takers: frozenset[str] = frozenset()

    @property
    def has_worker(self) -> bool:
        """Whether anybody takes from it."""
        return bool(self.takers)


async def describe_queue(
    client: Client,
    queue: str,
    timeout: timedelta,
    kind: TaskQueueType.ValueType = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
) -> QueueState:
    """Ask the engine about a queue; by default about an agent's.

    Backlog counts are approximate: they count cancelled work for a while.
    """
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=kind,
            report_stats=True,
        ),
        timeout=timeout,
    )
    backlog = {
        MAX_PRIORITY + 1 - key: stats.approximate_backlog_count
        for key, stats in answer.stats_by_priority_key.items()
        if stats.approximate_backlog_count > 0
    }
    return QueueState(backlog, frozenset(each.identity for each in answer.pollers))


async def describe_queues(
    client: Client, agents: Iterable[str], timeout: timedelta
) -> dict[str, QueueState]:
    """The state of each agent's queue, asked a few at a time."""
    turn = asyncio.Semaphore(_PARALLEL_CALLS)

    async def one(agent: str) -> tuple[str, QueueState]:
        async with turn:
            return agent, await describe_queue(client, agent_queue(agent), timeout)

    return dict(await asyncio.gather(*map(one, agents)))
