"""What each agent's tasks came to in the last minutes, counted from the engine's list of them.

Every process reads the same list, so each shows the traffic of all. Items of batches that have no
workflow of their own are not in it.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import Field
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest
from temporalio.client import Client

from orchestrator.engine import search_attributes
from orchestrator.engine.listing import quoted
from orchestrator.engine.record import STATES, moment
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.search_attributes import value_of
from orchestrator.engine.shared import SharedQuestions
from orchestrator.models import Model, TaskState
from orchestrator.routing import WORKFLOW_TYPE

BUCKET_SECONDS = 10
BUCKETS = 60
REFRESH_SECONDS = 5.0
PAGE_SIZE = 1000
MAX_PAGES = 5
"""More tasks than fit into these are not counted, which the answer tells."""

_COUNTED = {TaskState.COMPLETED, TaskState.FAILED}


class AgentTraffic(Model):
    """An agent's tasks by when they ended, the oldest bucket first."""

    completed: tuple[int, ...]
    failed: tuple[int, ...]
    seconds: tuple[float | None, ...] = Field(
        description="From start to end, the mean of those that completed; null where none did"
    )


class TrafficView(Model):
    """The answer of GET /traffic; agents without any are left out."""

    as_of: datetime
    bucket_seconds: int
    complete: bool = Field(description="false when there were more tasks than were counted")
    agents: dict[str, AgentTraffic]


@dataclass
class _Count:
    completed: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.seconds / self.completed if self.completed else None


_Bucket = dict[str, _Count]


class Traffic:
    """Counts while somebody asks, at most every 5 seconds; ``clock`` is the time of day.

    Only the buckets that may have changed are counted again.
    """

    def __init__(
        self, client: Client, timeout: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._timeout = timedelta(seconds=timeout)
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}
        self._counted_at = float("-inf")
        self._short_until = -1
        """The last bucket of which not all tasks were counted, as of none before it."""
        self._counting = SharedQuestions[None]()

    async def get(self) -> TrafficView:
        """The last ten minutes, at most 5 seconds old.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        now = self._clock()
        if not 0 <= now - self._counted_at < REFRESH_SECONDS:
            await self._counting.ask("traffic", lambda: self._count(now))
        return self._view()

    async def _count(self, now: float) -> None:
        newest = int(now // BUCKET_SECONDS)
        oldest = newest - BUCKETS + 1
        # Lists lag, so the bucket before the last look's may have grown since.
        seen = [index - 1 for index in self._buckets if index <= newest]
        begin = max([oldest, *seen])
        counted: defaultdict[int, _Bucket] = defaultdict(dict)
        ended, complete = await self._ended_since(begin * BUCKET_SECONDS)
        for info in ended:
            _add(counted, info)
        self._buckets = {k: v for k, v in self._buckets.items() if oldest <= k < begin}
        self._buckets |= {index: counted[index] for index in range(begin, newest + 1)}
        self._counted_at = now
        if complete:
            self._short_until = min(self._short_until, begin - 1)
        else:
            self._short_until = _bucket_of(ended[-1])

    async def _ended_since(self, begin: float) -> tuple[Sequence[WorkflowExecutionInfo], bool]:
        """The tasks that ended then or later, the newest first, and whether that is all."""
        since = datetime.fromtimestamp(begin, UTC).isoformat()
        found: list[WorkflowExecutionInfo] = []
        token = b""
        for _ in range(MAX_PAGES):
            request = ListWorkflowExecutionsRequest(
                namespace=self._client.namespace,
                page_size=PAGE_SIZE,
                next_page_token=token,
                query=f"WorkflowType = '{WORKFLOW_TYPE}' AND CloseTime >= {quoted(since)}",
            )
            async with engine_call(self._timeout):
                answer = await self._client.workflow_service.list_workflow_executions(
                    request, retry=True, timeout=self._timeout
                )
            found += answer.executions
            token = answer.next_page_token
            if not token:
                return found, True
        return found, False

    def _view(self) -> TrafficView:
        newest = int(self._counted_at // BUCKET_SECONDS)
        oldest = newest - BUCKETS + 1
        row = [self._buckets.get(index, {}) for index in range(oldest, newest + 1)]
        names = sorted({name for bucket in row for name in bucket})
        return TrafficView(
            as_of=datetime.fromtimestamp(self._counted_at, UTC),
            bucket_seconds=BUCKET_SECONDS,
            complete=self._short_until < oldest,
            agents={name: _of([bucket.get(name, _Count()) for bucket in row]) for name in names},
        )


def _add(counted: defaultdict[int, _Bucket], info: WorkflowExecutionInfo) -> None:
    agent = value_of(info.search_attributes, search_attributes.AGENT)
    state = STATES.get(info.status)
    if agent is None or state not in _COUNTED:
        return
    count = counted[_bucket_of(info)].setdefault(agent, _Count())
    if state is TaskState.COMPLETED:
        count.completed += 1
        took = moment(info.close_time) - moment(info.start_time)
        count.seconds += took.total_seconds()
    else:
        count.failed += 1


def _bucket_of(info: WorkflowExecutionInfo) -> int:
    return int(moment(info.close_time).timestamp() // BUCKET_SECONDS)


def _of(row: Sequence[_Count]) -> AgentTraffic:
    return AgentTraffic(
        completed=tuple(each.completed for each in row),
        failed=tuple(each.failed for each in row),
        seconds=tuple(each.mean for each in row),
    )
