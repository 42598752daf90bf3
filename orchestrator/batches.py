"""What travels to, from and about batches: many tasks that one workflow carries out in chunks.

An item is a task whose id tells its batch and its place there, so that nothing has to be looked up.
Times of day are UTC, durations are seconds.
"""

import re
import uuid
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic import Field

from orchestrator.models import (
    DEFAULT_TENANT,
    Accepted,
    Internal,
    Model,
    Plan,
    Progress,
    TaskRequest,
    TaskState,
)
from orchestrator.statuses import Verdict

BATCH_WORKFLOW = "TaskBatch"
RUN_CHUNK = "run_chunk"
"""The activity that makes many calls; its result is a ChunkReport."""
RECORD = "record"
"""The signal by which a chunk hands over outcomes that its result has no room for: ChunkReport."""
CANCEL_ITEMS = "cancel_items"
"""The signal that cancels items: a list of positions."""
UNWANTED = "unwanted"
"""The query by which a chunk asks which of its positions are cancelled: answered by Unwanted."""
RELEASE = "release"
"""The signal that lets a further part of a batch begin."""

MAX_ITEMS = 10_000
PART_BYTES = 1_400_000
"""The text of the items of one part; the engine takes 2 MiB for one input."""

MEMO_TALLY = "tally"
"""A BatchTally of what has ended: renewed as the batch goes on."""
MEMO_STARTS = "starts"
"""The position that each part begins with: [0] for a batch of one part."""

_VERSION = 0x8 << 76
_VERSION_MASK = 0xF << 76
_PLACE_MASK = 0xFFFF
_PLACE_DIGITS = 4
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PLAIN = re.compile(r"(?P<batch>.+)\.(?P<position>0|[1-9]\d{0,4})")


def batch_id_of(seed: uuid.UUID) -> str:
    """A batch's id made of a UUID: version 8 (RFC 9562), with 16 bits left for the place."""
    number = seed.int & ~_VERSION_MASK & ~_PLACE_MASK | _VERSION
    return str(uuid.UUID(int=number))


def part_id(batch_id: str, part: int) -> str:
    """The workflow id of a part of a batch; the first is the batch itself."""
    return batch_id if part == 0 else f"{batch_id}/part-{part}"


def item_id(batch_id: str, position: int) -> str:
    """The task id of the item at that position, the first being 0.

    A batch that was started by hand has any workflow id; its items' ids end in ``.position``.
    """
    # Made for each call of a batch, so without an object for it.
    if _is_ours(batch_id):
        return f"{batch_id[:-_PLACE_DIGITS]}{position + 1:0{_PLACE_DIGITS}x}"
    return f"{batch_id}.{position}"


def place_of(task_id: str) -> tuple[str, int] | None:
    """The batch and the position that a task id tells; None where it is no item's.

    An id such as ``nightly.3`` may also be that of a task which somebody named so.
    """
    if _UUID.fullmatch(task_id):
        number = uuid.UUID(task_id).int
        place = number & _PLACE_MASK
        if number & _VERSION_MASK != _VERSION or place == 0:
            return None
        return str(uuid.UUID(int=number - place)), place - 1
    if found := _PLAIN.fullmatch(task_id):
        return found["batch"], int(found["position"])
    return None


def is_certain(task_id: str) -> bool:
    """Whether an id can only be that of a batch's item, by its form."""
    return bool(_UUID.fullmatch(task_id)) and place_of(task_id) is not None


@lru_cache(maxsize=256)
def _is_ours(batch_id: str) -> bool:
    if not _UUID.fullmatch(batch_id):
        return False
    number = uuid.UUID(batch_id).int
    return number & _VERSION_MASK == _VERSION and number & _PLACE_MASK == 0


class BatchPlan(Internal):
    """How some of a batch's items are carried out.

    Args:
        plan: the route of each.
        alone: each becomes a task of its own at once: its agent is metered by its queue, or must
            not be called twice.
        strict: the deadline was asked for, and counts from the batch's start; else from each
            item's first attempt.
        tenant: of the items; those of several tenants have several plans.
        pace: calls a minute that the agent takes, where it has a limit that the batch keeps.
    """

    plan: Plan
    alone: bool = False
    strict: bool = False
    tenant: str = DEFAULT_TENANT
    pace: float | None = None


class BatchTally(Internal):
    """How many items have ended, and how; the result of workflow TaskBatch."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def pending(self) -> int:
        """How many have not ended."""
        return self.total - self.completed - self.failed - self.cancelled

    def plus(self, other: "BatchTally") -> "BatchTally":
        """Both together."""
        return BatchTally(
            total=self.total + other.total,
            completed=self.completed + other.completed,
            failed=self.failed + other.failed,
            cancelled=self.cancelled + other.cancelled,
        )


class Unfinished(Internal):
    """An item that goes on as a task of its own, under its id: what was tried, and the pause.

    Or the agent has ``accepted`` its call, and it waits for the answer.
    """

    position: int
    progress: Progress
    pause: float = 0
    accepted: Accepted | None = None


class Batch(Internal):
    """The argument of workflow TaskBatch; by hand only ``tasks`` is needed.

    Items travel as JSON text, since most of them only wait; ``chosen`` names the plan of each.

    Args:
        tasks: requests that are yet to be routed.
        plans: how the items are carried out.
        items: their requests (TaskRequest) as JSON.
        chosen: for each item the index of its plan.
        positions: of the items in the whole batch; None where they follow on ``first``.
        unfinished: those of them that are to go on alone, when a new run carries on.
        first: the position of the first item.
        part: which part of the batch this is; part 0 leads the others.
        starts: the position that each part begins with.
        batch_id: of the batch, where the workflow's own id is another.
        coalesced: the items were handed in as single tasks: each was admitted by itself, and what
            they were told of rates and deadlines holds.
        tally: of this part, when it is carried on by a new run.
        traceparent: of the request.
        created_at: when it was accepted.
    """

    tasks: tuple[TaskRequest, ...] | None = Field(default=None, max_length=MAX_ITEMS)
    plans: tuple[BatchPlan, ...] = ()
    items: tuple[str, ...] = ()
    chosen: tuple[int, ...] = ()
    positions: tuple[int, ...] | None = None
    unfinished: tuple[Unfinished, ...] = ()
    first: int = 0
    part: int = 0
    starts: tuple[int, ...] = (0,)
    batch_id: str | None = None
    coalesced: bool = False
    tally: BatchTally | None = None
    traceparent: str | None = None
    created_at: datetime | None = None


class Chunk(Internal):
    """The argument of activity run_chunk: items of one plan.

    ``wait`` says what to do while the agent is not available: wait for it, or give them back.
    ``paid`` says that the agent's rate limit has let each of them pass already. ``asks`` says that
    items of the batch were cancelled before, so that the chunk asks by itself which are.
    """

    batch_id: str
    plan: Plan
    strict: bool = False
    positions: tuple[int, ...]
    items: tuple[str, ...]
    created_at: datetime
    traceparent: str | None = None
    wait: bool = True
    paid: bool = False
    asks: bool = False


class Unwanted(Internal):
    """Which items of a chunk are cancelled, if not ``everything``."""

    everything: bool = False
    positions: tuple[int, ...] = ()


class ItemOutcome(Internal):
    """How an item ended in a chunk.

    Args:
        position: in the batch.
        state: completed, failed or cancelled.
        at: when it ended.
        result: of a completed one; null is a result too.
        error: of a failed one, with its ``error_type``.
        dead_letter: it becomes one.
        attempt: the number of the attempt that was made last; None where none was.
        instance: that was called, with the ``status`` it answered, after so many ``seconds``.
    """

    position: int
    state: TaskState
    at: datetime
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    dead_letter: bool = False
    attempt: int | None = None
    instance: str | None = None
    status: int | None = None
    seconds: float | None = None


class ChunkReport(Internal):
    """The result of run_chunk, and what its heartbeats carry.

    Args:
        agent: that was called.
        outcomes: of the items that have ended.
        unfinished: those that go on by themselves.
        left: positions of those for which nothing was begun.
        cancelled: positions of those that a cancellation met.
        recorded: positions of those whose outcomes were sent as signals.
        waits: how often the engine was told to come again, nothing having been begun.
    """

    agent: str
    outcomes: tuple[ItemOutcome, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    left: tuple[int, ...] = ()
    cancelled: tuple[int, ...] = ()
    recorded: tuple[int, ...] = ()
    waits: int = 0

    @property
    def known(self) -> set[int]:
        """Positions of the items that the chunk is done with."""
        ended = {each.position for each in self.outcomes}
        return ended.union(self.recorded, (each.position for each in self.unfinished))


class Parts(Internal):
    """The argument of activity follow_parts: the batch, and how many parts it has."""

    batch_id: str
    count: int


class BatchStatus(Model):
    """The answer of GET /batches/{batch_id}.

    ``completed`` says that every item has ended, ``failed`` that the batch itself was ended.
    """

    batch_id: str
    status: TaskState
    total: int
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    pending: int = 0
    created_at: datetime
    updated_at: datetime
    error: str | None = None
    tenant: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Whose all of its items are",
    )


class BadItem(Model):
    """One thing that is wrong with one item of a batch that was handed in."""

    index: int = Field(description="Of the item; the first is 0")
    field: str | None = None
    message: str


class BatchAccepted(BatchStatus):
    """The answer of POST /orchestrate/batch; what was left out by ``partial`` beside it."""

    rejected: tuple[BadItem, ...] = Field(
        default=(), description="With partial: what is wrong with the items that were left out"
    )
    rejected_items: int = Field(default=0, description="How many were left out")


class BatchRehearsal(Model):
    """The answer of POST /orchestrate/batch?dry_run=true."""

    total: int
    agents: dict[str, int] = Field(description="How many items each agent would get")
    admission: Verdict
    rejected: tuple[BadItem, ...] = ()
    rejected_items: int = 0


class BatchPage(Model):
    """The answer of GET /batches."""

    batches: tuple[BatchStatus, ...]
    next_cursor: str | None = None
