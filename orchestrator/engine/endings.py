"""Which of many tasks have ended, and how: asked of the engine in as few calls as it takes.

Items of batches are looked up in their batch, all of it together. Of other tasks the engine's
list names those that run, so that only the rest is read one by one; a few are waited for instead.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from orchestrator.batches import is_certain, item_id, place_of
from orchestrator.engine import search_attributes
from orchestrator.engine.converter import INVALID_INPUT
from orchestrator.engine.histories import Histories, WorkflowNotFound
from orchestrator.engine.listing import quoted
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import BatchNotFound, EngineUnavailable, TaskNotFound
from orchestrator.routing import WORKFLOW_TYPE
from orchestrator.statuses import TaskStatus

FEW = 64
"""So many tasks are waited for, each by a call that lasts until its end."""
MAX_POLLS = 400
"""Such calls of one process; the engine allows 1,200 of a namespace by default."""
POLL_SECONDS = 20.0
LISTED_AT_ONCE = 200
ASKED_AT_ONCE = 16
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0
"""Between looks at many, which grow rarer while nothing ends."""
PAUSE_SECONDS_PER_THOUSAND = 1.0
"""More between looks at more; engines allow 10 lists a second by default."""
PAUSE_SECONDS_PER_THOUSAND_ITEMS = 0.1
"""For those that are looked up in their batch."""
ENGINE_PAUSE_SECONDS = 1.0

Answer = TypeVar("Answer")
Ending = tuple[str, TaskStatus | None]
"""A task and its final status; None where there is no such task."""


class Endings:
    """Looks at tasks, and waits for their ends; an engine that is away is waited for."""

    def __init__(self, client: Client, tasks: Tasks, rpc_timeout: float) -> None:
        self._client = client
        self._tasks = tasks
        self._deadline = timedelta(seconds=rpc_timeout)
        self._histories = Histories(client, rpc_timeout)
        self._polls = 0

    async def look(
        self, task_ids: Iterable[str], knows_only: str | None = None
    ) -> AsyncGenerator[Ending, None]:
        """Those that have ended, or do not exist, as it is now.

        With a tenant in ``knows_only`` the tasks of others are as if they did not exist.
        """
        batches, others = _sorted_out(task_ids)
        for batch_id, positions in batches.items():
            async for ending in self._look_into(batch_id, positions, knows_only):
                yield ending
        for some in _slices(others, LISTED_AT_ONCE):
            running = (
                await self.running(WORKFLOW_TYPE, some, knows_only)
                if len(others) > FEW
                else set[str]()
            )
            asked = [task_id for task_id in some if task_id not in running]
            for few in _slices(asked, ASKED_AT_ONCE):
                asking = (self._ask(task_id, knows_only=knows_only) for task_id in few)
                for answer in await asyncio.gather(*asking):
                    if answer is not None:
                        yield answer

    async def follow(self, task_ids: Iterable[str]) -> AsyncGenerator[Ending, None]:
        """Each of them once it has ended; begins with those that do next.

        Whose they are has been looked at before.
        """
        polled, swept = self._shared_out(task_ids)
        polls = {asyncio.create_task(self._end_of(task_id)) for task_id in polled}
        self._polls += len(polled)
        pause = FIRST_PAUSE_SECONDS
        sleep = asyncio.create_task(asyncio.sleep(pause))
        try:
            while polls or swept:
                watched = polls | {sleep} if swept else polls
                done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for each in polls & done:
                    polls.remove(each)
                    yield each.result()
                if swept and sleep.done():
                    before = len(swept)
                    async for ending in self.look(tuple(swept)):
                        del swept[ending[0]]
                        yield ending
                    pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
                    if len(swept) < before:
                        pause = FIRST_PAUSE_SECONDS
                    sleep = asyncio.create_task(asyncio.sleep(pause + _more_pause(swept)))
        finally:
            self._polls -= len(polled)
            for task in (*polls, sleep):
                task.cancel()

    def _shared_out(self, task_ids: Iterable[str]) -> tuple[list[str], dict[str, None]]:
        """Those that are waited for one by one, and those that are looked at together."""
        tasks = list(task_ids)
        polled = [task_id for task_id in tasks if not is_certain(task_id)]
        if len(polled) > min(FEW, MAX_POLLS - self._polls):
            polled = []
        return polled, dict.fromkeys(task_id for task_id in tasks if task_id not in set(polled))

    async def _look_into(
        self, batch_id: str, positions: Sequence[int], knows_only: str | None
    ) -> AsyncGenerator[Ending, None]:
        batches = self._tasks.batches
        try:
            batch = await patiently(lambda: batches.status(batch_id))
            known = set(positions) & set(range(batch.total))
        except BatchNotFound:
            known = set()
        else:
            if knows_only not in {None, batch.tenant}:
                known = await self._own_items(batch_id, known, knows_only)
        for position in positions:
            if position not in known:
                yield item_id(batch_id, position), None
        left = sorted(known)
        while left:
            ended = await _items(batches.outcomes, batch_id, left)
            for position in sorted(ended):
                yield item_id(batch_id, position), ended[position]
            # An answer holds so many bytes; the next one may tell of more.
            left = [position for position in left if ended and position > max(ended)]

    async def _own_items(
        self, batch_id: str, positions: Iterable[int], tenant: str | None
    ) -> set[int]:
        """Which items are the tenant's, of a batch that may be several tenants'."""
        found = set[int]()
        for position in positions:
            with contextlib.suppress(TaskNotFound):
                item = await patiently(partial(self._tasks.batches.item, batch_id, position))
                if item.tenant == tenant:
                    found.add(position)
        return found

    async def _ask(
        self, task_id: str, wait: float = 0, knows_only: str | None = None
    ) -> Ending | None:
        try:
            status = await patiently(lambda: self._tasks.status(task_id, wait))
        except TaskNotFound:
            return task_id, None
        if knows_only not in {None, status.tenant}:
            return task_id, None
        return (task_id, status) if status.status.is_final else None

    async def _end_of(self, task_id: str) -> Ending:
        while True:
            ending = await self._ask(task_id, POLL_SECONDS)
            if ending is not None:
                return ending

    async def running(
        self, kind: str, workflow_ids: Sequence[str], tenant: str | None = None
    ) -> set[str]:
        """Which of up to 200 workflows of one type run; the list lags by some 100 ms.

        With a tenant only those of that one.
        """
        ids = ", ".join(map(quoted, workflow_ids))
        its = f" AND {search_attributes.TENANT.name} = {quoted(tenant)}" if tenant else ""
        request = ListWorkflowExecutionsRequest(
            namespace=self._client.namespace,
            page_size=LISTED_AT_ONCE,
            query=f"WorkflowType = {quoted(kind)} AND ExecutionStatus = 'Running'"
            f" AND WorkflowId IN ({ids}){its}",
        )
        found: set[str] = set()
        while True:
            answer = await patiently(lambda: self._list(request))
            found |= {each.execution.workflow_id for each in answer.executions}
            if not answer.next_page_token:
                return found
            request.next_page_token = answer.next_page_token

    async def refusal(self, batch_id: str) -> str | None:
        """Why a batch took none of its tasks; None where it did."""
        try:
            end = await patiently(lambda: self._histories.closing_event(batch_id, 0))
        except WorkflowNotFound:
            return None
        if end is None or not end.HasField("workflow_execution_failed_event_attributes"):
            return None
        failure = end.workflow_execution_failed_event_attributes.failure
        error = await self._client.data_converter.decode_failure(failure)
        if isinstance(error, ApplicationError) and error.type == INVALID_INPUT:
            return error.message
        return None

    async def _list(self, request: ListWorkflowExecutionsRequest) -> Any:
        async with engine_call(self._deadline):
            return await self._client.workflow_service.list_workflow_executions(
                request, retry=True, timeout=self._deadline
            )


async def patiently(ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """The engine's answer, however long it is away."""
    while True:
        try:
            return await ask()
        except EngineUnavailable:
            await asyncio.sleep(ENGINE_PAUSE_SECONDS)


async def _items(
    ask: Callable[[str, Sequence[int]], Coroutine[Any, Any, dict[int, TaskStatus]]],
    batch_id: str,
    positions: Sequence[int],
) -> dict[int, TaskStatus]:
    return await patiently(lambda: ask(batch_id, positions))


def _more_pause(task_ids: Collection[str]) -> float:
    """Seconds between looks at so many tasks, beside what any looks have between them."""
    items = sum(map(is_certain, task_ids))
    others = len(task_ids) - items
    return (others * PAUSE_SECONDS_PER_THOUSAND + items * PAUSE_SECONDS_PER_THOUSAND_ITEMS) / 1000


def _sorted_out(task_ids: Iterable[str]) -> tuple[dict[str, list[int]], list[str]]:
    """The positions of items by batch, and the other tasks."""
    batches: dict[str, list[int]] = {}
    others: list[str] = []
    for task_id in task_ids:
        place = place_of(task_id) if is_certain(task_id) else None
        if place is None:
            others.append(task_id)
        else:
            batches.setdefault(place[0], []).append(place[1])
    return batches, others


def _slices(values: Collection[Answer], size: int) -> Iterable[list[Answer]]:
    every = list(values)
    return (every[start : start + size] for start in range(0, len(every), size))
