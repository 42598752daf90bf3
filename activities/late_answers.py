"""Waiting for the answer of an agent that took a call with 202: until it is posted, or by polling.

Neither holds a slot of the worker while it waits. A posted answer completes the first activity
from outside; between two looks at the agent's ``Location`` the engine keeps the second.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.outcomes import words
from orchestrator.call_errors import AgentFailed, AgentRejected, CallError, RetryableCallError
from orchestrator.late_models import AnswerWait, LateAnswer, LateFailure, LateProgress
from orchestrator.routing import AWAIT_ANSWER, POLL_ANSWER
from orchestrator.transports import AgentRequest, Transport

STILL_WORKING = "StillWorking"
POLL_SECONDS = 30.0
"""How long one look may take."""
LAST_LOOK_SECONDS = 1.0
"""So long before the time is up the last look begins, or sooner than a tenth of what is left."""
_FORGOTTEN = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}


class LateAnswers:
    """The activities with what polling needs: the transport, and headers by agent."""

    def __init__(self, transport: Transport, headers: Mapping[str, Mapping[str, str]]) -> None:
        self._transport = transport
        self._headers = headers

    @activity.defn(name=AWAIT_ANSWER)
    async def await_answer(self, wait: AnswerWait) -> LateAnswer:
        """Leave the activity open, for whoever has the call's completion URL to end."""
        handle = activity.client().get_async_activity_handle(task_token=activity.info().task_token)
        # The answer may be there already; and without this only the status says less.
        with suppress(RPCError, AsyncActivityCancelledError):
            await handle.heartbeat(_known(wait))
        activity.raise_complete_async()

    @activity.defn(name=POLL_ANSWER)
    async def poll_answer(self, wait: AnswerWait) -> LateAnswer:
        """Look once at the agent's ``Location``; the engine comes again until the answer is there.

        Raises:
            ApplicationError: not there yet; or, with a LateFailure, it will not come.
        """
        if activity.info().attempt == 1:
            raise _again(wait, _known(wait), wait.accepted.pause)
        try:
            response = await self._transport.send(self._request(wait))
        except RetryableCallError as error:
            raise _again(wait, _last(wait), error.retry_after, error) from None
        except CallError as error:
            raise _no_answer(error) from None
        if response.status != HTTPStatus.ACCEPTED:
            return LateAnswer(result=response.body)
        said = _known(wait).model_copy(update={"said": response.body})
        raise _again(wait, said, response.retry_after)

    def _request(self, wait: AnswerWait) -> AgentRequest:
        headers = {**self._headers.get(wait.agent, {}), "X-Task-ID": wait.task_id}
        return AgentRequest(
            agent=wait.agent,
            url=wait.accepted.location or "",
            payload=None,
            headers=headers,
            timeout=max(0.001, min(POLL_SECONDS, _left(wait))),
        )


def _known(wait: AnswerWait) -> LateProgress:
    return LateProgress(progress=wait.accepted.progress, until=wait.until)


def _last(wait: AnswerWait) -> LateProgress:
    """What is known, with what the agent said before this look failed."""
    details = activity.info().heartbeat_details
    return LateProgress.model_validate(details[0]) if details else _known(wait)


def _left(wait: AnswerWait) -> float:
    return (wait.until - datetime.now(UTC)).total_seconds()


def _again(
    wait: AnswerWait, known: LateProgress, pause: float | None, error: CallError | None = None
) -> ApplicationError:
    """Let the engine come again, after the pause that the agent asked for or the rule's.

    A last look comes before the time is up: a pause beyond it would end the waiting now.
    """
    activity.heartbeat(known)
    pause = wait.interval if pause is None else pause
    left = _left(wait)
    pause = min(pause or 0, left - min(LAST_LOOK_SECONDS, left / 10))
    return ApplicationError(
        words(error) if error else f"Agent '{wait.agent}' is still at work",
        type=type(error).__name__ if error else STILL_WORKING,
        next_retry_delay=timedelta(seconds=max(0.05, pause)),
    )


def _no_answer(error: CallError) -> ApplicationError:
    """What the agent refuses to show; work that it has forgotten may be done anew."""
    forgotten = error.status in _FORGOTTEN
    return ApplicationError(
        words(error),
        LateFailure(retryable=forgotten),
        type=AgentFailed.__name__ if forgotten else AgentRejected.__name__,
        non_retryable=True,
    )
