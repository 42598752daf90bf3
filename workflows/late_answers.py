"""The answers of agents that took a call with 202: how a task waits for them, and what they bring.

A posted answer ends an activity that nobody holds; a polled one is looked for again and again.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, RetryState, TimeoutType
from temporalio.exceptions import TimeoutError as EngineTimeoutError

with workflow.unsafe.imports_passed_through():
    from activities.late_answers import LateAnswers
    from activities.outcomes import ERROR_CHARACTERS, SUCCESS, pause_after
    from orchestrator.call_errors import AgentFailed, AgentTimedOut, OutcomeUnknown
    from orchestrator.late_models import AnswerWait, LateAnswer, LateFailure
    from orchestrator.models import (
        Accepted,
        AgentReply,
        Attempt,
        BlockedBy,
        CallFailure,
        LateRule,
        Progress,
        RetryPlan,
        Route,
    )
    from orchestrator.routing import WORKFLOW_QUEUE
    from workflows import options
    from workflows.failures import Failed


class LateCall:
    """One call that the agent took; ``left`` is what is left of the task's deadline."""

    def __init__(
        self, route: Route, accepted: Accepted, rule: LateRule | None, left: timedelta
    ) -> None:
        self._route = route
        self._accepted = accepted
        self._rule = rule or LateRule()
        self._left = left
        self._began = workflow.now()

    async def answer(self) -> AgentReply:
        """Wait for the answer.

        Raises:
            ActivityError: it did not come, or was a failure; ``failed`` says what that means.
        """
        accepted = self._accepted
        late = await (self._posted() if accepted.location is None else self._polled())
        attempt = self._ended(SUCCESS)
        return AgentReply(
            result=late.result,
            instance=attempt.instance or "",
            status=attempt.status or 0,
            attempt=accepted.progress.sent,
            seconds=attempt.seconds,
            attempts=self._with(attempt).attempts,
        )

    async def _posted(self) -> LateAnswer:
        longest, silence = self._rule.answer_timeout, self._rule.progress_timeout
        return await workflow.execute_activity_method(
            LateAnswers.await_answer,
            self._wait(),
            activity_id=self._accepted.answer_id,
            task_queue=WORKFLOW_QUEUE,
            schedule_to_close_timeout=self._left,
            start_to_close_timeout=timedelta(seconds=longest) if longest else self._left,
            heartbeat_timeout=timedelta(seconds=silence) if silence else None,
            retry_policy=options.ONCE,
            # Nobody is there to hear of it: the URL is refused from then on.
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            summary="the agent answers later",
        )

    async def _polled(self) -> LateAnswer:
        return await workflow.execute_activity_method(
            LateAnswers.poll_answer,
            self._wait(),
            activity_id=self._accepted.answer_id,
            task_queue=WORKFLOW_QUEUE,
            schedule_to_close_timeout=self._longest,
            start_to_close_timeout=options.POLL_TIMEOUT,
            retry_policy=options.POLLS,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            summary="the agent's Location is polled",
        )

    @property
    def _longest(self) -> timedelta:
        longest = self._rule.answer_timeout
        return min(self._left, timedelta(seconds=longest)) if longest else self._left

    def _wait(self) -> AnswerWait:
        polled = self._accepted.location is not None
        return AnswerWait(
            task_id=workflow.info().workflow_id,
            agent=self._route.agent,
            accepted=self._accepted,
            until=self._began + self._longest,
            **({"interval": self._rule.poll_interval} if polled else {}),
        )

    def failed(self, error: ActivityError, retry: RetryPlan) -> Failed:
        """What went wrong, and whether the agent may be called again."""
        kind, message, said = self._words(error)
        passed = self._is_too_late(error) and self._longest >= self._left
        if said.retryable and not self._route.idempotent:
            kind, said = OutcomeUnknown.__name__, LateFailure()
            message += "; the agent is not idempotent, so it is not called again"
        progress = self._with(self._ended(kind, message))
        exhausted = said.retryable and progress.made >= retry.max_attempts
        details = CallFailure(progress=progress, attempts=progress.sent, exhausted=exhausted)
        if said.retryable and not exhausted and not passed:
            asked = AgentFailed(message, retry_after=said.retry_after)
            pause = pause_after(asked, retry, progress.made, workflow.random().random)
            again = {"retryable": True, "pause": pause, "blocked_by": BlockedBy.RETRY_BACKOFF}
            details = details.model_copy(update=again)
        return Failed(kind, message, details, passed, unavailable=False, was_started=True)

    def _words(self, error: ActivityError) -> tuple[str, str, LateFailure]:
        """Type and message of what went wrong, and what the failure carries."""
        cause = error.cause
        if self._is_too_late(error) or not isinstance(cause, ApplicationError):
            silent = isinstance(cause, EngineTimeoutError) and cause.type is TimeoutType.HEARTBEAT
            text = (
                f"has said nothing for {self._rule.progress_timeout:g} s"
                if silent
                else f"has not answered within {self._longest.total_seconds():g} s"
            )
            message = f"{self._route.agent} took the call and {text}"
            return AgentTimedOut.__name__, message, LateFailure(retryable=True)
        details = cause.details[0] if cause.details else None
        said = LateFailure.model_validate(details) if isinstance(details, dict) else LateFailure()
        return cause.type or "CallFailed", cause.message, said

    @staticmethod
    def _is_too_late(error: ActivityError) -> bool:
        cause = error.cause
        late = {TimeoutType.SCHEDULE_TO_CLOSE, TimeoutType.START_TO_CLOSE}
        timed_out = isinstance(cause, EngineTimeoutError) and cause.type in late
        return timed_out or error.retry_state is RetryState.TIMEOUT

    def _ended(self, outcome: str, error: str | None = None) -> Attempt:
        """The attempt that the agent took, as it has ended now."""
        attempt = self._accepted.attempt
        waited = (workflow.now() - self._began).total_seconds()
        return attempt.model_copy(
            update={
                "outcome": outcome,
                "seconds": round(attempt.seconds + waited, 6),
                **({"error": error[:ERROR_CHARACTERS]} if error else {}),
            }
        )

    def _with(self, attempt: Attempt) -> Progress:
        known = self._accepted.progress
        return known.model_copy(update={"attempts": (*known.attempts[:-1], attempt)})
