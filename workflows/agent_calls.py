"""How a task's agents are called: inline where that is wanted, by their queues, one after another.

An inline call is made once, where the workflow runs. Whatever must wait goes by the agent's queue,
where the engine repeats it: retries, and calls to an agent that is not available.

A rule's fallbacks are tried in their order when the agent before has used up its attempts, or takes
no call. When none takes any, the task waits for the first that has attempts left.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities.call_agent import AgentCalls
    from activities.outcomes import UNAVAILABLE
    from orchestrator.engine.queues import engine_priority
    from orchestrator.models import (
        DEADLINE_EXCEEDED,
        AgentCall,
        AgentReply,
        Attempt,
        Dispatch,
        Plan,
        Progress,
        Route,
        Task,
    )
    from workflows import failures, options, patches
    from workflows.failures import Failed
    from workflows.late_answers import LateCall


class Exhausted(Exception):
    """No agent answered; ``failed`` is what the last of them failed with."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Calls:
    """The calls of one task."""

    def __init__(self, task: Task, plan: Plan) -> None:
        self.plan = plan
        """Its priority may change while calls are made: later ones go by it."""
        self.agent = plan.agent
        """The agent called last."""
        self._task = task
        self._courses: dict[str, Progress] = {}
        self._history: tuple[Attempt, ...] = ()
        self._begun = task.begun
        if task.begun:
            accepted = task.begun.accepted
            begun = accepted.progress if accepted else task.begun.progress
            self._courses[plan.agent] = begun
            self._history = begun.attempts

    @property
    def attempts(self) -> int:
        """How many attempts were made, of all agents."""
        return sum(course.sent for course in self._courses.values())

    @property
    def attempt_history(self) -> tuple[Attempt, ...]:
        """The latest of them."""
        return self._history

    async def make(self) -> AgentReply:
        """Call the agents until one answers.

        Raises:
            Exhausted: none did, and there is nothing left to try.
            FailureError: the task was cancelled.
        """
        waiting: Route | None = None
        last: Exhausted | None = None
        for route in self.plan.routes:
            try:
                return await self._try(route, wait=not self.plan.fallbacks)
            except Exhausted as error:
                if error.failed.unavailable:
                    waiting = waiting or route
                elif not error.failed.exhausted:
                    raise
                last = error
        if waiting is not None:
            return await self._try(waiting, wait=True)
        assert last is not None  # noqa: S101 - a plan has at least its own route
        raise last

    async def _try(self, route: Route, *, wait: bool) -> AgentReply:
        """All attempts of one agent, until the answer of one of them, be it a late one."""
        self.agent = route.agent
        begun, self._begun = self._begun, None
        # An inline call is made again when its worker was lost, which some must not be.
        inline = not begun and self.plan.dispatch is Dispatch.INLINE and route.idempotent
        accepted, pause = (begun.accepted, begun.pause) if begun else (None, 0.0)
        while True:
            if accepted is None:
                reply = await self._reply(route, wait=wait, pause=pause, inline=inline)
                if reply.accepted is None:
                    return reply
                accepted = reply.accepted
            late = LateCall(route, accepted, self.plan.late, self._time_for_call())
            try:
                return self._answered(route, await late.answer())
            except ActivityError as error:
                failed = self._failed_late(route, late, error)
                if failed.details is None or not failed.details.retryable:
                    raise Exhausted(failed) from error
                accepted, pause, inline = None, failed.details.pause or 0, False

    async def _reply(self, route: Route, *, wait: bool, pause: float, inline: bool) -> AgentReply:
        """What the agent answers at once; that may be that it answers later."""
        self._refuse_too_late()
        call = self._call(route, wait=wait, pause=pause)
        if inline:
            try:
                return self._answered(route, await self._inline(call))
            except FailureError as error:
                failed = self._failed(route, error)
                details = failed.details
                if details is None or not details.retryable or (failed.unavailable and not wait):
                    raise Exhausted(failed) from error
                self._refuse_too_late()
                pause = (details.pause or 0) if failed.kind != UNAVAILABLE else 0
                call = self._call(route, wait=wait, pause=pause)
        try:
            return self._answered(route, await self._queued(route, call))
        except FailureError as error:
            raise Exhausted(self._failed(route, error)) from error

    def _call(self, route: Route, *, wait: bool, pause: float = 0) -> AgentCall:
        call = AgentCall(
            task_id=workflow.info().workflow_id,
            agent=route.agent,
            endpoint=route.endpoint,
            payload=self._task.payload,
            attempt_timeout=self.plan.attempt_timeout,
            retry=self.plan.retry,
            traceparent=self._task.traceparent,
            idempotent=route.idempotent,
        )
        # What says nothing is not sent along: this is the hot path.
        further: dict[str, object] = {}
        if self.plan.late:
            further["late"] = self.plan.late
        if not wait:
            further["wait"] = False
        if self.plan.events:
            further["events"] = True
        if pause:
            further["pause"] = pause
        if self._courses:
            course = self._courses.get(route.agent, Progress())
            further["progress"] = course.model_copy(update={"attempts": self._history})
        return call.model_copy(update=further) if further else call

    async def _inline(self, call: AgentCall) -> AgentReply:
        return await workflow.execute_local_activity_method(
            AgentCalls.call_agent,
            call,
            schedule_to_close_timeout=self._time_for_call(),
            start_to_close_timeout=self._attempt_timeout(),
            retry_policy=options.ONCE,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    async def _queued(self, route: Route, call: AgentCall) -> AgentReply:
        return await workflow.execute_activity_method(
            AgentCalls.call_agent,
            call,
            task_queue=route.task_queue,
            schedule_to_close_timeout=self._time_for_call(),
            schedule_to_start_timeout=None if call.wait else options.FALLBACK_AFTER,
            start_to_close_timeout=self._attempt_timeout(),
            heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
            retry_policy=options.retry_policy(self.plan.retry, idempotent=route.idempotent),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"POST {route.endpoint}",
            # A start by hand, or by a parent, carries none for the call to inherit.
            priority=engine_priority(
                self.plan.priority, self._task.tenant, self.plan.fairness_weight
            ),
        )

    @property
    def out_of_time(self) -> bool:
        """Whether the task's deadline has passed."""
        return self._left() <= timedelta()

    def _left(self) -> timedelta:
        """Of the task's deadline."""
        spent = workflow.now() - workflow.info().workflow_start_time
        spent += timedelta(seconds=self._task.waited)
        return timedelta(seconds=self.plan.deadline) - spent

    def _time_for_call(self) -> timedelta:
        """What is left; the engine takes no timeout of nothing."""
        return max(self._left(), timedelta(milliseconds=1))

    def _attempt_timeout(self) -> timedelta:
        return timedelta(seconds=self.plan.attempt_timeout) + options.BACKSTOP

    def _answered(self, route: Route, reply: AgentReply) -> AgentReply:
        accepted = reply.accepted
        self._courses[route.agent] = accepted.progress if accepted else Progress(sent=reply.attempt)
        self._history = reply.attempts
        return reply

    def _failed_late(self, route: Route, late: LateCall, error: ActivityError) -> Failed:
        if failures.was_cancelled(error):
            raise error
        failed = late.failed(error, self.plan.retry)
        assert failed.details is not None  # noqa: S101 - that of a late answer always has them
        self._courses[route.agent] = failed.details.progress
        self._history = failed.attempt_history
        return failed

    def _failed(self, route: Route, error: FailureError) -> Failed:
        if failures.was_cancelled(error):
            raise error
        failed = failures.read(error, idempotent=route.idempotent)
        known = self._courses.get(route.agent, Progress())
        said = failed.details.progress if failed.details else known
        lost = max(0, failed.attempts - said.sent)
        self._courses[route.agent] = Progress(sent=said.sent + lost, made=said.made + lost)
        self._history = failed.attempt_history or self._history
        return failed

    def _refuse_too_late(self) -> None:
        """Raise where the deadline has passed: the agent is not to be called any more."""
        if not (self.out_of_time and workflow.patched(patches.NO_CALL_TOO_LATE)):
            return
        last = self._history[-1] if self._history else None
        raise Exhausted(
            Failed(
                kind=DEADLINE_EXCEEDED,
                message=(last and last.error) or failures.STILL_WAITING,
                details=None,
                deadline_passed=True,
                unavailable=False,
                was_started=False,
            )
        )
