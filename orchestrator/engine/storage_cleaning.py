"""Removes stored payloads that no workflow needs any more.

A payload is removed when it is older than the engine's retention and a margin, and the engine has
forgotten its workflow: no run of it is open, and none is retained. So what open workflows need,
dead letters among them, stays however old it is.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from itertools import islice

from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    ListWorkflowExecutionsRequest,
)
from temporalio.client import Client

from orchestrator.engine.histories import Histories, WorkflowNotFound
from orchestrator.engine.listing import quoted
from orchestrator.engine.objects import Objects
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.storage import place_of, prefix_of
from orchestrator.models import Model

_AT_ONCE = 20
"""Workflows that the engine is asked about together; it limits lists to some a second."""


class Cleaned(Model):
    """What a clean-up did, or would do. Sizes are bytes.

    Args:
        place: the storage.
        before: older objects may be removed.
        stored: objects of the namespace that are there.
        removed: of them, those that nothing needs.
        needed: those that are old enough, whose workflow the engine still has.
        unowned: those that are old enough and name no workflow; they stay.
    """

    place: str
    before: datetime
    dry_run: bool
    stored: int = 0
    stored_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0
    needed: int = 0
    unowned: int = 0


@dataclass
class _Found:
    """The objects of a namespace; the old ones by their workflow."""

    stored: int = 0
    stored_bytes: int = 0
    unowned: int = 0
    old: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))


class Cleaner:
    """Cleans the storage of one namespace.

    Args:
        client: of the engine, which knows what is needed.
        objects: the storage.
        margin: how long objects stay beyond the engine's retention.
        deadline: of one call to the engine.
    """

    def __init__(
        self, client: Client, objects: Objects, margin: timedelta, deadline: timedelta
    ) -> None:
        self._client = client
        self._objects = objects
        self._margin = margin
        self._deadline = deadline
        self._histories = Histories(client, deadline.total_seconds())

    async def clean(self, *, dry_run: bool = False) -> Cleaned:
        """Remove what nothing needs; with ``dry_run`` only count it.

        Raises:
            EngineUnavailable: the engine did not answer; what was not asked about stays.
            StorageUnavailable: the storage did not.
        """
        before = datetime.now(UTC) - await self._retention() - self._margin
        found = await asyncio.to_thread(self._find, before)
        removed = removed_bytes = needed = 0
        for ids in _chunks(list(found.old)):
            forgotten = await self._forgotten(ids)
            needed += sum(len(found.old[each]) for each in ids if each not in forgotten)
            doomed = [each for id_ in forgotten for each in found.old[id_]]
            if not dry_run:
                await asyncio.to_thread(self._remove, [key for key, _ in doomed])
            removed += len(doomed)
            removed_bytes += sum(size for _, size in doomed)
        if not dry_run:
            await asyncio.to_thread(self._objects.tidy)
        return Cleaned(
            place=self._objects.place,
            before=before,
            dry_run=dry_run,
            stored=found.stored,
            stored_bytes=found.stored_bytes,
            removed=removed,
            removed_bytes=removed_bytes,
            needed=needed,
            unowned=found.unowned,
        )

    async def _retention(self) -> timedelta:
        async with engine_call(self._deadline):
            answer = await self._client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=self._client.namespace),
                retry=True,
                timeout=self._deadline,
            )
        return answer.config.workflow_execution_retention_ttl.ToTimedelta()

    def _find(self, before: datetime) -> _Found:
        found = _Found()
        for key, size in self._objects.sizes(prefix_of(self._client.namespace)):
            place = place_of(key)
            if place is None:
                continue
            found.stored += 1
            found.stored_bytes += size
            # It may have been stored at the day's very end.
            stored_at = datetime.combine(place.day, time.max, UTC)
            if stored_at >= before:
                continue
            if place.workflow_id is None:
                found.unowned += 1
            else:
                found.old[place.workflow_id].append((key, size))
        return found

    async def _forgotten(self, ids: Sequence[str]) -> list[str]:
        """Those of the workflows of which the engine has no run."""
        known = await asyncio.gather(*map(self._is_known, ids))
        left = [id_ for id_, is_known in zip(ids, known, strict=True) if not is_known]
        if not left:
            return []
        # The latest run may have been deleted by hand, and earlier ones not.
        listed = await self._listed(left)
        return [each for each in left if each not in listed]

    async def _is_known(self, workflow_id: str) -> bool:
        try:
            await self._histories.describe(workflow_id)
        except WorkflowNotFound:
            return False
        return True

    async def _listed(self, ids: Sequence[str]) -> set[str]:
        found, token = set[str](), b""
        while True:
            request = ListWorkflowExecutionsRequest(
                namespace=self._client.namespace,
                query=f"WorkflowId IN ({', '.join(map(quoted, ids))})",
                next_page_token=token,
            )
            async with engine_call(self._deadline):
                answer = await self._client.workflow_service.list_workflow_executions(
                    request, retry=True, timeout=self._deadline
                )
            found.update(each.execution.workflow_id for each in answer.executions)
            token = answer.next_page_token
            if not token:
                return found

    def _remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._objects.delete(key)


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while chunk := list(islice(rest, _AT_ONCE)):
        yield chunk
