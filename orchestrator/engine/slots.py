"""The slots of an agent's worker: work that the agent cannot take now stays in the engine's queue.

The engine's own mechanism for bounding a worker, with the pool's word for how many calls may be in
flight: none while every breaker is open, as many as there are trial permits in half-open, then more
and more. So a backlog waits where priorities and fairness order it, and costs no attempt.
"""

import asyncio
import contextlib

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

from orchestrator.resilience.pool import Pool

_OTHER_SLOTS = FixedSizeSlotSupplier(1)


class AgentSlots(CustomSlotSupplier):
    """As many slots as the agent's pool has capacity; use it in the event loop that made it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._used = 0
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        pool.watch(self._changed.set)

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:  # noqa: ARG002 - the engine's signature
        """Wait for a slot; the engine asks for one before it polls for work."""
        while self._used >= self._pool.capacity():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pool.next_look()):
                    await self._changed.wait()
        self._used += 1
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002
        """None: an agent's calls always come by its queue."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Nothing to do: a slot counts from its reservation."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:  # noqa: ARG002
        """Give a slot back; called from the engine's own threads."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._released)

    def _released(self) -> None:
        self._used -= 1
        self._changed.set()


def agent_tuner(pool: Pool) -> WorkerTuner:
    """The tuner of a worker that makes the agent's calls and nothing else."""
    return WorkerTuner.create_composite(
        workflow_supplier=_OTHER_SLOTS,
        activity_supplier=AgentSlots(pool),
        local_activity_supplier=_OTHER_SLOTS,
        nexus_supplier=_OTHER_SLOTS,
    )
