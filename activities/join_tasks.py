"""The tasks of an aggregate: watched until enough have ended, cancelled, redriven."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from activities.heartbeats import signs_of_life
from activities.outcomes import WORKER_STOPPING
from orchestrator.aggregates import (
    CANCEL_TASKS,
    JOIN_TASKS,
    REDRIVE_TASKS,
    REPORT_BYTES,
    Joined,
    JoinReport,
    JoinWatch,
    TaskSet,
    size_of,
)
from orchestrator.dead_letters import DEAD_LETTER_WORKFLOW, DeadLetterOrder, dead_letter_id
from orchestrator.engine.batch_told import BATCH_FAILED
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.endings import LISTED_AT_ONCE, Ending, Endings, patiently
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import (
    DeadLetterNotFound,
    EngineRefused,
    OrderRefused,
    TaskNotFound,
)
from orchestrator.joining import is_over
from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus

LARGEST_BYTES = 1_900_000
"""Of JSON for one outcome alone; the engine takes 2 MiB."""
ENOUGH_PERCENT = 10
"""A report is made when so many of the open tasks have ended."""
REPORT_SECONDS = 5.0
"""Or so long after the first of them has ended."""
TASKS_PER_SECOND = 500
"""Longer for more tasks, since each report makes the workflow name all that are left."""
ASKED_AT_ONCE = 8
CERTAINLY_ASKED = 200
"""Of more tasks, only those are redriven whose dead letter the engine's list shows."""


class TaskJoiner:
    """The activities with what they need: the engine's tasks and dead letters."""

    def __init__(self, tasks: Tasks, dead_letters: DeadLetters, endings: Endings) -> None:
        self._tasks = tasks
        self._dead_letters = dead_letters
        self._endings = endings

    @classmethod
    def of(cls, client: Client, rpc_timeout: float) -> "TaskJoiner":
        """The same of one engine, each call bounded by ``rpc_timeout`` seconds."""
        tasks = Tasks(client, rpc_timeout)
        return cls(tasks, DeadLetters(client, rpc_timeout), Endings(client, tasks, rpc_timeout))

    @activity.defn(name=JOIN_TASKS)
    async def join_tasks(self, watch: JoinWatch) -> JoinReport:
        """Watch tasks until enough have ended to tell; when it is cancelled, tell what there is.

        Enough is what decides the join, a tenth of those that were open, or 1.5 MB. One pass over
        all comes first, and is finished even if the join is decided before.
        """
        gathering = _Gathering(watch)
        try:
            async with signs_of_life():
                await self._gather(gathering)
        except asyncio.CancelledError:
            _raise_if_stopping()
        return await self._with_refusal(watch, gathering.report)

    async def _with_refusal(self, watch: JoinWatch, report: JoinReport) -> JoinReport:
        """With what only the batch itself tells of its items: that it took none of them."""
        failed = any(each.error_type == BATCH_FAILED for each in report.outcomes)
        if watch.batch_id is None or not failed:
            return report
        refusal = await self._endings.refusal(watch.batch_id)
        return report.model_copy(update={"refusal": refusal})

    async def _gather(self, gathering: "_Gathering") -> None:
        async with aclosing(self._endings.look(gathering.left, gathering.knows_only)) as endings:
            async for ending in endings:
                gathering.add(ending)
                if gathering.is_full:
                    return
        if gathering.suffices:
            return
        try:
            async with (
                asyncio.timeout(None) as limit,
                aclosing(self._endings.follow(gathering.left)) as endings,
            ):
                if gathering.outcomes:
                    gathering.allow(limit)
                async for ending in endings:
                    gathering.add(ending)
                    if gathering.is_full or gathering.suffices:
                        return
                    if limit.when() is None:
                        gathering.allow(limit)
        except TimeoutError:
            return

    @activity.defn(name=CANCEL_TASKS)
    async def cancel_tasks(self, tasks: TaskSet) -> None:
        """Ask each to end; what has ended, or does not exist, is left as it is."""

        async def cancel(task_id: str) -> None:
            try:
                await self._check(task_id, tasks.knows_only)
                await patiently(lambda: self._tasks.cancel(task_id))
            except TaskNotFound:
                return

        await self._for_each(tasks.task_ids, cancel)

    @activity.defn(name=REDRIVE_TASKS)
    async def redrive_tasks(self, tasks: TaskSet) -> JoinReport:
        """Redrive those that have a dead letter; all are to be joined anew.

        So it may be repeated: those that are under way are found to be.
        """
        by = activity.info().workflow_id or ""
        order = DeadLetterOrder(reason="the aggregate is redriven", by=by[:100])

        async def redrive(task_id: str) -> None:
            try:
                await self._check(task_id, tasks.knows_only)
                await patiently(lambda: self._dead_letters.redrive(task_id, order))
            except (TaskNotFound, DeadLetterNotFound, OrderRefused, EngineRefused):
                return

        await self._for_each(tasks.task_ids, redrive, self._dead)
        return JoinReport(reopened=tasks.positions)

    async def _check(self, task_id: str, tenant: str | None) -> None:
        """Raises TaskNotFound for a task of another than the tenant whose alone are known."""
        if tenant is None:
            return
        if (await patiently(lambda: self._tasks.status(task_id))).tenant != tenant:
            raise TaskNotFound(task_id)

    async def _dead(self, task_ids: Iterable[str]) -> list[str]:
        """Those of them that have a dead letter, where they are too many to ask for each."""
        asked = list(task_ids)
        if len(asked) <= CERTAINLY_ASKED:
            return asked
        found: list[str] = []
        for start in range(0, len(asked), LISTED_AT_ONCE):
            some = {dead_letter_id(each): each for each in asked[start : start + LISTED_AT_ONCE]}
            listed = await self._endings.running(DEAD_LETTER_WORKFLOW, list(some))
            found += [task_id for dead, task_id in some.items() if dead in listed]
        return found

    async def _for_each(
        self,
        task_ids: Iterable[str],
        work: Callable[[str], Awaitable[None]],
        choose: Callable[[Iterable[str]], Awaitable[list[str]]] | None = None,
    ) -> None:
        """Do it for all, some at once, until the activity is cancelled."""
        turn = asyncio.Semaphore(ASKED_AT_ONCE)

        async def in_turn(task_id: str) -> None:
            async with turn:
                await work(task_id)

        try:
            async with signs_of_life():
                chosen = await choose(task_ids) if choose else task_ids
                async with asyncio.TaskGroup() as group:
                    for task_id in chosen:
                        group.create_task(in_turn(task_id))
        except asyncio.CancelledError:
            _raise_if_stopping()


class _Gathering:
    """The outcomes for one report, until it is full or says enough."""

    def __init__(self, watch: JoinWatch) -> None:
        self._watch = watch
        self._counts = watch.counts
        self._bytes = 0
        self.left = dict(zip(watch.task_ids, watch.positions, strict=True))
        """The positions of the tasks of which nothing was told, by id."""
        self.outcomes: list[Joined] = []
        self.is_full = False

    @property
    def knows_only(self) -> str | None:
        """The tenant whose tasks alone are known."""
        return self._watch.knows_only

    @property
    def report(self) -> JoinReport:
        """What there is."""
        return JoinReport(outcomes=tuple(self.outcomes))

    @property
    def suffices(self) -> bool:
        """Whether it is worth a report: the join is decided, or a good part has ended."""
        enough = len(self.outcomes) * 100 >= len(self._watch.task_ids) * ENOUGH_PERCENT
        return not self.left or enough or is_over(self._watch.policy, self._counts)

    def allow(self, limit: asyncio.Timeout) -> None:
        """Set when what has ended is told, though it is little."""
        seconds = max(REPORT_SECONDS, len(self._watch.task_ids) / TASKS_PER_SECOND)
        limit.reschedule(asyncio.get_running_loop().time() + seconds)

    def add(self, ending: Ending) -> None:
        """Take one in, unless the report has no room for it."""
        task_id, status = ending
        outcome = _outcome(self.left[task_id], task_id, status)
        size = size_of(outcome)
        if size > LARGEST_BYTES:
            outcome = outcome.model_copy(update={"result": None, "left_out": True})
            size = size_of(outcome)
        if self.outcomes and self._bytes + size > REPORT_BYTES:
            self.is_full = True
            return
        del self.left[task_id]
        self._bytes += size
        self._counts = self._counts.with_ends([outcome.state])
        self.outcomes.append(outcome)


def _outcome(position: int, task_id: str, status: TaskStatus | None) -> Joined:
    if status is None:
        return Joined(position=position, task_id=task_id, state=TaskState.FAILED, known=False)
    told = {
        "agent": status.agent,
        "result": status.result,
        "error": status.error,
        "error_type": status.error_type,
        "execution_time": status.execution_time,
        "dead_letter": status.dead_letter,
    }
    # Thousands of outcomes may share a report, and what is not set takes no room in it.
    there = {name: value for name, value in told.items() if value is not None}
    return Joined(
        position=position,
        task_id=task_id,
        state=status.status,
        at=status.updated_at,
        **there,
    )


def _raise_if_stopping() -> None:
    """Let another worker go on, where it is the worker that ends and not the join."""
    details = activity.cancellation_details()
    if details is None or not details.cancel_requested:
        raise ApplicationError(
            "The worker was stopped before the tasks had ended",
            type=WORKER_STOPPING,
            next_retry_delay=timedelta(milliseconds=1),
        ) from None
