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
    """The pool's slots, for the engine; use it in the event loop that made it."""

    def __init__(self, pool: Pool) -> None:
        self._slots = pool.slots
        self._loop = asyncio.get_running_loop()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:  # noqa: ARG002 - the engine's signature
        """Wait for a slot; the engine asks for one before it polls for work."""
        await self._slots.take()
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002
        """None: an agent's calls always come by its queue."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Nothing to do: a slot counts from its reservation."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:  # noqa: ARG002
        """Give a slot back; called from the engine's own threads."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._slots.give_back)


def agent_tuner(pool: Pool) -> WorkerTuner:
    """The tuner of a worker that makes the agent's calls and nothing else."""
    return WorkerTuner.create_composite(
        workflow_supplier=_OTHER_SLOTS,
        activity_supplier=AgentSlots(pool),
        local_activity_supplier=_OTHER_SLOTS,
        nexus_supplier=_OTHER_SLOTS,
    )
