"""Telling the receivers of a batch's items how these have ended."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.start_callbacks import CallbackStarter
    from orchestrator.callbacks import ItemCallbacks, ItemEnd
    from workflows import options, patches
    from workflows.batch_items import Items


class Receivers:
    """Starts the callbacks of one batch's items, one activity at a time."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id
        self._busy = False

    def next(self, items: Items) -> Coroutine[Any, Any, None] | None:
        """What tells of those that have ended, to be run beside the rest."""
        if self._busy or not (ends := _next(items)):
            return None
        self._busy = True
        return self._start(items, ends)

    async def tell_all(self, items: Items) -> None:
        """Tell of all that have ended."""
        while ends := _next(items):
            await self._start(items, ends)

    async def _start(self, items: Items, ends: tuple[ItemEnd, ...]) -> None:
        try:
            await workflow.execute_activity_method(
                CallbackStarter.start_callbacks,
                ItemCallbacks(batch_id=self._batch_id, ends=ends),
                start_to_close_timeout=options.CALLBACK_STARTS_TIMEOUT,
                heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
                retry_policy=options.PATIENT,
                summary=f"{len(ends)} callbacks",
            )
        except (FailureError, asyncio.CancelledError) as error:
            if not is_cancelled_exception(error):
                raise
            # The batch is cut off, which tells them again; each delivery begins once.
            items.tell_again(ends)
            raise asyncio.CancelledError from error
        finally:
            self._busy = False


def _next(items: Items) -> tuple[ItemEnd, ...]:
    ends = items.next_callbacks()
    return ends if ends and workflow.patched(patches.CALLBACKS) else ()
