"""Workflows as the engine keeps them: what one is now, and its events, read piece by piece.

Works while every worker is down. An execution names a workflow's id and one of its runs; without a
run its latest is meant.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import HistoryEventFilterType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.engine.rpc import engine_call

LONG_POLL_SECONDS = 5.0
_ABSENT = {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}
_PAGE_EVENTS = 200
"""The engine ends a run whose history has 50 MB, which bounds one page too."""


class WorkflowNotFound(LookupError):
    """The engine has no such workflow or run: never started, or past its retention."""


class Histories:
    """Reads workflows' records, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer, and WorkflowNotFound.
    """

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)

    async def describe(
        self, workflow_id: str, run_id: str = ""
    ) -> DescribeWorkflowExecutionResponse:
        """What a workflow is now; its ``history_length`` is the id of its latest event."""
        execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
        try:
            async with engine_call(self._deadline):
                return await self._client.workflow_service.describe_workflow_execution(
                    DescribeWorkflowExecutionRequest(
                        namespace=self._client.namespace, execution=execution
                    ),
                    retry=True,
                    timeout=self._deadline,
                )
        except RPCError as error:
            raise _absent(error, execution) from None

    async def first(self, execution: WorkflowExecution) -> HistoryEvent:
        """The event that a run began with: its input, and the run that it carries on."""
        async for event in self._forward(execution, 1):
            return event
        raise WorkflowNotFound(execution.workflow_id)

    async def events(
        self, execution: WorkflowExecution, last: int, known: int = 0
    ) -> AsyncIterator[HistoryEvent]:
        """The events of one run after the one numbered ``known``, oldest first.

        Args:
            execution: with its run.
            last: the number of the last that is wanted: ``history_length`` as described. What the
                engine shows beyond may yet become something else.
            known: the number of the last that was read before.
        """
        if known == 0:
            async for event in self._forward(execution, _PAGE_EVENTS):
                if event.event_id > last:
                    return
                yield event
        elif known < last:
            newest = [event async for event in self._backward(execution, known)]
            for event in reversed(newest):
                if event.event_id <= last:
                    yield event

    async def news(
        self, execution: WorkflowExecution, token: bytes, seconds: float
    ) -> tuple[Sequence[HistoryEvent], bytes] | None:
        """The events of one run since those that an earlier call told of; waits for some.

        Args:
            execution: with its run.
            token: of the earlier call; without one, all events are told.
            seconds: to wait.

        Returns:
            The events and the token for the next call, empty once the run has ended; None where
            nothing happened for so long. The last may be of a workflow task that is yet to become
            something else.
        """
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._client.namespace,
            execution=execution,
            maximum_page_size=_PAGE_EVENTS,
            next_page_token=token,
            wait_new_event=True,
            skip_archival=True,
        )
        deadline = self._deadline + timedelta(seconds=seconds)
        try:
            async with asyncio.timeout(seconds), engine_call(deadline):
                answer = await self._history(request, deadline)
        except TimeoutError:
            return None
        except RPCError as error:
            raise _absent(error, execution) from None
        return answer.history.events, answer.next_page_token

    async def runs(self, execution: WorkflowExecution) -> list[str]:
        """The run and those that it carries on by continue-as-new, the latest first.

        Runs that the engine has deleted meanwhile, as retention says, are not among them.
        """
        chain = [execution.run_id]
        while True:
            run = WorkflowExecution(workflow_id=execution.workflow_id, run_id=chain[-1])
            try:
                event = await self.first(run)
            except WorkflowNotFound:
                if len(chain) == 1:
                    raise
                return chain[:-1]
            before = continued_run(event)
            if not before:
                return chain
            chain.append(before)

    async def closing_event(self, workflow_id: str, wait: float) -> HistoryEvent | None:
        """The last event of a closed workflow; None if it stays open for ``wait`` seconds."""
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id),
            history_event_filter_type=HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
            wait_new_event=wait > 0,
            skip_archival=True,
        )
        deadline = self._deadline + timedelta(seconds=wait)
        poll = LONG_POLL_SECONDS if wait else None
        try:
            async with asyncio.timeout(wait or None):
                while True:
                    try:
                        # Asked anew, it tells of a close that it did not tell who waited.
                        async with asyncio.timeout(poll), engine_call(deadline):
                            answer = await self._history(request, deadline)
                    except TimeoutError:
                        continue
                    for event in answer.history.events:
                        following = _following_run(event)
                        if not following:
                            return event
                        request.execution.run_id = following
                        request.next_page_token = b""
                        break
                    else:
                        if not answer.next_page_token:
                            return None
                        request.next_page_token = answer.next_page_token
        except TimeoutError:
            return None
        except RPCError as error:
            raise _absent(error, request.execution) from None

    async def _history(
        self, request: GetWorkflowExecutionHistoryRequest, deadline: timedelta
    ) -> GetWorkflowExecutionHistoryResponse:
        return await self._client.workflow_service.get_workflow_execution_history(
            request, retry=True, timeout=deadline
        )

    async def _forward(
        self, execution: WorkflowExecution, page_events: int
    ) -> AsyncIterator[HistoryEvent]:
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._client.namespace,
            execution=execution,
            maximum_page_size=page_events,
            skip_archival=True,
        )
        while True:
            try:
                async with engine_call(self._deadline):
                    answer = await self._history(request, self._deadline)
            except RPCError as error:
                raise _absent(error, execution) from None
            for event in answer.history.events:
                yield event
            if not answer.next_page_token:
                return
            request.next_page_token = answer.next_page_token

    async def _backward(
        self, execution: WorkflowExecution, known: int
    ) -> AsyncIterator[HistoryEvent]:
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self._client.namespace, execution=execution, maximum_page_size=_PAGE_EVENTS
        )
        service = self._client.workflow_service
        while True:
            try:
                async with engine_call(self._deadline):
                    answer = await service.get_workflow_execution_history_reverse(
                        request, retry=True, timeout=self._deadline
                    )
            except RPCError as error:
                raise _absent(error, execution) from None
            for event in answer.history.events:
                if event.event_id <= known:
                    return
                yield event
            if not answer.next_page_token:
                return
            request.next_page_token = answer.next_page_token


def continued_run(event: HistoryEvent) -> str:
    """The run that another one carries on, by its first event; empty where it carries on none."""
    return event.workflow_execution_started_event_attributes.continued_execution_run_id


def _following_run(event: HistoryEvent) -> str:
    """The run that carries on, by the last event of the run before it."""
    return event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id


def _absent(error: RPCError, execution: WorkflowExecution) -> Exception:
    return WorkflowNotFound(execution.workflow_id) if error.status in _ABSENT else error
