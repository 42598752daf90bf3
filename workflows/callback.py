"""DeliverCallback: a task's final status on its way to the receiver, until it is there.

What cannot be delivered stays open, so that it outlives the engine's retention, and waits to be
redelivered or discarded.
"""

import asyncio
from contextlib import suppress

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities.deliver_callback import CallbackSender
    from orchestrator.callbacks import (
        CALLBACK_QUEUE,
        CALLBACK_WORKFLOW,
        Callback,
        CallbackEnd,
        CallbackOrder,
        Delivered,
        DeliveryFailure,
        callback_of,
        callback_workflow_id,
    )
    from orchestrator.engine import search_attributes
    from orchestrator.engine.callbacks import (
        DISCARDED,
        ENDED_BEFORE,
        MEMO_FAILURE,
        attributes_of,
        memo_of,
        receiver_turn,
        summary_of,
    )
    from orchestrator.errors import PayloadTooLarge
    from orchestrator.routing import WORKFLOW_QUEUE
    from orchestrator.statuses import TaskStatus
    from orchestrator.telemetry.logging import get_logger
    from workflows import options

log = get_logger(__name__)


async def call_back(url: str, status: TaskStatus, earlier_runs: int) -> None:
    """Have the receiver told of the running workflow's end, and outlive a cancellation meanwhile.

    Returns once the engine has the delivery; what becomes of that, the task does not wait for.
    """
    callback = callback_of(url, status, earlier_runs)
    starting = asyncio.create_task(_start(callback))
    while not starting.done():
        # The task has ended before anybody cancelled it.
        with suppress(asyncio.CancelledError):
            await asyncio.shield(starting)
    starting.result()


async def _start(callback: Callback) -> None:
    try:
        await workflow.start_child_workflow(
            CALLBACK_WORKFLOW,
            callback,
            id=callback_workflow_id(callback.callback_id),
            task_queue=WORKFLOW_QUEUE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
            memo=memo_of(callback),
            search_attributes=attributes_of(callback),
            static_summary=summary_of(callback),
        )
    except WorkflowAlreadyStartedError:
        # By this very run, before somebody reset it.
        _log("callback_exists", callback)
    except PayloadTooLarge as error:
        _log("callback_lost", callback, reason=str(error))


@workflow.defn(name=CALLBACK_WORKFLOW)
class DeliverCallback:
    """Ends when the callback is delivered, or given up by somebody."""

    @workflow.init
    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._delivering: workflow.ActivityHandle[Delivered] | None = None
        self._again = False
        self._end: CallbackEnd | None = None

    @workflow.run
    async def run(self, callback: Callback) -> CallbackEnd:
        """Deliver it."""
        while True:
            self._again = False
            end = self._end or await self._deliver(callback)
            if end is None:
                await workflow.wait_condition(lambda: self._again or self._end is not None)
            if end := end or self._end:
                break
            self._tell("Delivering again.")
            workflow.upsert_search_attributes([search_attributes.ERROR_TYPE.value_unset()])
            self._carry_on(callback)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return end

    async def _deliver(self, callback: Callback) -> CallbackEnd | None:
        """One pass through the schedule; None where the callback was not delivered by it."""
        self._delivering = workflow.start_activity_method(
            CallbackSender.deliver_callback,
            callback,
            task_queue=CALLBACK_QUEUE,
            start_to_close_timeout=options.CALLBACK_TIMEOUT,
            heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
            retry_policy=options.CALLBACK_RETRY,
            priority=receiver_turn(callback.url),
            summary=summary_of(callback),
        )
        try:
            delivered = await self._delivering
        except ActivityError as error:
            if is_cancelled_exception(error):
                if not self._again and self._end is None:
                    raise
                return None
            self._bury(error.cause)
            return None
        finally:
            self._delivering = None
        self._tell(f"**Delivered** at attempt {delivered.attempts}.")
        return CallbackEnd(delivered=delivered)

    def _bury(self, cause: BaseException | None) -> None:
        """Record that it is dead: in what lists are made of, and for the Web UI."""
        kind = cause.type if isinstance(cause, ApplicationError) else None
        said = cause.details[0] if isinstance(cause, ApplicationError) and cause.details else None
        failure = (
            DeliveryFailure.model_validate(said)
            if said
            else DeliveryFailure(attempts=0, error=str(cause), at=workflow.now())
        )
        kind = kind or type(cause).__name__
        workflow.upsert_memo({MEMO_FAILURE: failure})
        workflow.upsert_search_attributes([search_attributes.ERROR_TYPE.value_set(kind)])
        self._tell(
            f"**Dead** after {failure.attempts} attempts: {kind}, {failure.error}\n\n"
            "Send the update `redeliver` to deliver it again, or `discard` to give it up; "
            'both take `{"reason": "...", "by": "..."}` or nothing.'
        )

    @workflow.update
    async def redeliver(self, order: CallbackOrder | None = None) -> None:
        """Deliver it now, and by the whole schedule again if that fails.

        Raises:
            ApplicationError: it has ended before.
        """
        self._refuse_if_ended()
        self._again = True
        self._interrupt()
        self._log_order("callback_redelivered", order)

    @workflow.update
    async def discard(self, order: CallbackOrder | None = None) -> None:
        """Give it up.

        Raises:
            ApplicationError: it has ended before.
        """
        self._refuse_if_ended()
        order = order or CallbackOrder()
        self._end = CallbackEnd(reason=order.reason, by=order.by)
        workflow.upsert_search_attributes([search_attributes.ERROR_TYPE.value_set(DISCARDED)])
        self._interrupt()
        self._tell(f"**Discarded** {order.by} {order.reason}".strip())
        self._log_order("callback_discarded", order)

    def _interrupt(self) -> None:
        """End the pass that is under way, which may be pausing for hours."""
        if self._delivering is not None:
            self._delivering.cancel()

    def _refuse_if_ended(self) -> None:
        if self._end is not None:
            raise ApplicationError("It was discarded before", type=ENDED_BEFORE, non_retryable=True)

    def _carry_on(self, callback: Callback) -> None:
        """In a new run, where this one has become long: each pass keeps the whole body."""
        if workflow.info().is_continue_as_new_suggested():
            # What was upserted would not be carried over by itself.
            workflow.continue_as_new(
                callback, memo=memo_of(callback), search_attributes=attributes_of(callback)
            )

    def _tell(self, news: str) -> None:
        workflow.set_current_details(
            f"Callback of task `{self._callback.task_id}`, {self._callback.event}.\n\n{news}"
        )

    def _log_order(self, event: str, order: CallbackOrder | None) -> None:
        order = order or CallbackOrder()
        _log(event, self._callback, reason=order.reason, by=order.by)


def _log(event: str, callback: Callback, **fields: object) -> None:
    if not workflow.unsafe.is_replaying():
        log.info(event, callback_id=callback.callback_id, **fields)
