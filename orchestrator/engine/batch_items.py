"""The items of batches as tasks: what their batch has recorded, or a workflow of their own.

An item's state is found so: an outcome that its batch has recorded; else, if it became a task of
its own, that workflow; else what the chunk that has it in hand tells; else whether it was
cancelled. One that failed and is a dead letter may have been run again: that run is the newer word.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from pydantic_core import to_json
from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest
from temporalio.client import Client

from orchestrator.batches import item_id
from orchestrator.engine.batch_parts import BatchParts, Part
from orchestrator.engine.batch_record import outcomes_of
from orchestrator.engine.batch_records import BatchRecords
from orchestrator.engine.batch_told import Told, cut_short, status_of, tell
from orchestrator.engine.histories import WorkflowNotFound
from orchestrator.engine.listing import STATE_BY_NAME, quoted
from orchestrator.engine.record import Recorder, Waiting
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import TaskNotFound
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_TYPE
from orchestrator.statuses import TaskStatus

_SLICE = 50
"""Items that are looked at together; each outcome may have 2 MB."""
_AT_ONCE = 8
_LISTED_AT_ONCE = 200
_ASKED_SINGLY = 64
_BESIDE_RESULT_BYTES = 300
"""What an outcome takes beside its result or error."""

OwnStatus = Callable[[str], Awaitable[TaskStatus]]
"""The status of a task's own workflow; raises TaskNotFound."""


@dataclass(frozen=True)
class Seen:
    """An item's status, with what it waits for; ``own`` says that its own workflow tells it."""

    status: TaskStatus
    waiting: Waiting = field(default_factory=Waiting)
    own: bool = False


class BatchItems:
    """Looks items up.

    Every method raises EngineUnavailable when the engine does not answer.
    """

    def __init__(
        self,
        client: Client,
        parts: BatchParts,
        records: BatchRecords,
        own: OwnStatus,
        rpc_timeout: float,
    ) -> None:
        self._client = client
        self._parts = parts
        self._records = records
        self._own = own
        self._recorder = Recorder(client.data_converter)
        self._deadline = timedelta(seconds=rpc_timeout)

    async def item(self, batch_id: str, position: int, lead: Part | None = None) -> Seen:
        """One item, by the first part of its batch where that is known.

        Raises:
            BatchNotFound: no such batch.
            TaskNotFound: no such item in it.
        """
        if settled := self._settled(batch_id, position):
            return settled
        part = await self._parts.holding(batch_id, position, lead)
        told = (await self._told(part, [position])).get(position) if part else None
        seen = await self._seen(part, told) if part and told else None
        if seen is None:
            raise TaskNotFound(item_id(batch_id, position))
        return seen

    def is_under_way(self, position: int, lead: Part | None) -> bool:
        """Whether all that is known here tells that the item has not ended; asks nobody."""
        record = self._records.known(lead.execution.run_id) if lead else None
        if lead is None or record is None or lead.closed or record.closed:
            return False
        if position not in record or record.tells_of(position):
            return False
        chunk = record.chunk_of(position)
        activity = lead.chunks.get(chunk.activity_id) if chunk else None
        return activity is None or not activity.heartbeat_details.payloads

    def _settled(self, batch_id: str, position: int) -> Seen | None:
        """One whose end is known here, and will stay so: it costs no call to the engine."""
        part = self._parts.seen(batch_id)
        if part is None or position not in part.positions:
            return None
        known = self._records.settled(part.execution.run_id, position)
        if known is None:
            return None
        record, recorded = known
        return Seen(status_of(part, Told(position, record, recorded.state, recorded=recorded)))

    async def outcomes(
        self, parts: Iterable[Part], positions: Iterable[int], most_bytes: int
    ) -> dict[int, TaskStatus]:
        """Those of the items that have ended; not all, where they have more bytes together."""
        ended: dict[int, TaskStatus] = {}
        wanted = sorted(set(positions))
        size = 0
        for part in parts:
            rest = iter([each for each in wanted if each in part.positions])
            while taken := list(islice(rest, _SLICE)):
                await asyncio.sleep(0)  # many items must not hold up other requests
                told = await self._told(part, taken)
                async for position, seen in self._each_seen(part, await self._closed(part, told)):
                    if seen.status.status.is_final:
                        ended[position] = seen.status
                        size += _size(told[position], seen)
                    if size > most_bytes:
                        return ended
        return ended

    async def walk(
        self, part: Part, positions: Sequence[int], state: TaskState | None
    ) -> AsyncIterator[tuple[int, Seen, int]]:
        """Items of one part in their order, each with its position and bytes.

        Whether one was run again is taken from the engine's lists, which lag by some 100 ms.

        Args:
            part: that has them.
            positions: of those that are looked at.
            state: of those that are wanted; None wants all. Some others may be among them.
        """
        rest = iter(positions)
        while taken := list(islice(rest, _SLICE)):
            await asyncio.sleep(0)  # many items must not hold up other requests
            found = await self._told(part, taken)
            told = [found[each] for each in taken if each in found and found[each].may_be(state)]
            doubtful = [each.position for each in told if each.may_be_newer]
            again = await self._listed(part.batch_id, doubtful)
            async for position, seen in self._each_seen(part, told, again):
                yield position, seen, _size(found[position], seen)

    async def _each_seen(
        self, part: Part, told: Sequence[Told], again: frozenset[int] | None = None
    ) -> AsyncIterator[tuple[int, Seen]]:
        """The items that are still known, a few asked for at once.

        ``again`` are those that may have been run again; None asks for each that may have.
        """
        for begin in range(0, len(told), _AT_ONCE):
            group = told[begin : begin + _AT_ONCE]
            asked = [each for each in group if each.needs_asking(again)]
            answers = await asyncio.gather(*(self._seen(part, each) for each in asked))
            seen = {each.position: answer for each, answer in zip(asked, answers, strict=True)}
            for each in group:
                position = each.position
                found = seen[position] if position in seen else Seen(status_of(part, each))
                if found is not None:
                    yield position, found

    async def _seen(self, part: Part, told: Told) -> Seen | None:
        """The item's status; None if it was a task of its own which the engine has deleted."""
        if told.needs_asking():
            try:
                status = await self._own(item_id(part.batch_id, told.position))
            except TaskNotFound:
                if told.state is None and part.closed is TaskState.COMPLETED:
                    return None
                if told.state is None and part.closed:
                    told = cut_short(part, told.record, told.position)
            else:
                return Seen(status.model_copy(update={"batch_id": part.batch_id}), own=True)
        waiting = await self._recorder.waiting(told.held) if told.held else told.waiting
        return Seen(status_of(part, told), waiting)

    async def _told(self, part: Part, positions: Sequence[int]) -> dict[int, Told]:
        """What the batch's record tells of the items; of some it may tell nothing."""
        info = part.info
        try:
            found = await self._records.find(part.execution, info.history_length, positions)
        except WorkflowNotFound:
            return {}
        told = {}
        for position, record in found.items():
            chunk = record.chunk_of(position)
            name = chunk.activity_id if chunk else ""
            if name in part.chunks and name not in part.reports:
                part.reports[name] = outcomes_of(await self._parts.report(part.chunks[name]))
            told[position] = tell(part, record, position, part.reports)
        return told

    async def _closed(self, part: Part, told: Mapping[int, Told]) -> list[Told]:
        """Without those whose own workflow is open, as far as the engine's lists tell."""
        own = [each.position for each in told.values() if each.state is None]
        closed = frozenset(own)
        if len(own) > _ASKED_SINGLY:
            names = ", ".join(quoted(name) for name in STATE_BY_NAME)
            clause = f"ExecutionStatus IN ({names})"
            closed = await self._listed(part.batch_id, own, clause)
        return [
            each
            for position, each in sorted(told.items())
            if each.state is not None or position in closed
        ]

    async def _listed(
        self, batch_id: str, positions: Sequence[int], clause: str = ""
    ) -> frozenset[int]:
        """Those of the items for which the engine lists a workflow of their own."""
        found: set[str] = set()
        by_id = {item_id(batch_id, position): position for position in positions}
        ids = iter(by_id)
        while taken := list(islice(ids, _LISTED_AT_ONCE)):
            among = f"WorkflowId IN ({', '.join(map(quoted, taken))})"
            query = " AND ".join(filter(None, (f"WorkflowType = '{WORKFLOW_TYPE}'", among, clause)))
            request = ListWorkflowExecutionsRequest(
                namespace=self._client.namespace, page_size=len(taken), query=query
            )
            while True:
                async with engine_call(self._deadline):
                    answer = await self._client.workflow_service.list_workflow_executions(
                        request, retry=True, timeout=self._deadline
                    )
                found.update(each.execution.workflow_id for each in answer.executions)
                if not answer.next_page_token:
                    break
                request.next_page_token = answer.next_page_token
        return frozenset(by_id[each] for each in found)


def _size(told: Told, seen: Seen) -> int:
    """About how many bytes a result has."""
    if told.recorded is not None and not seen.own:
        return max(0, len(told.recorded.outcome) - _BESIDE_RESULT_BYTES)
    return len(to_json(seen.status.result))
