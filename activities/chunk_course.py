"""The calls of one dispatch of a chunk: what is in flight, and what is yet to begin."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json, to_json
from temporalio import activity

from activities import item_outcomes
from activities.call_agent import call_headers, seconds_waited
from activities.chunk_means import Means
from activities.chunk_report import Ledger
from activities.late_calls import answer_by, answer_id_of, completion_header, located
from activities.outcomes import (
    ACCEPTED,
    ERROR_CHARACTERS,
    SUCCESS,
    log_failure,
    pause_after,
    still_down,
    words,
)
from orchestrator.batches import Chunk, ItemOutcome, Unfinished, item_id
from orchestrator.call_errors import CallError, ReplyTooLarge, RetryableCallError
from orchestrator.engine.converter import MAX_BLOB_BYTES
from orchestrator.errors import AgentUnavailable
from orchestrator.messaging.events import Event, EventType, News
from orchestrator.models import (
    DEADLINE_EXCEEDED,
    Accepted,
    Attempt,
    BlockedBy,
    Progress,
    RateLimit,
)
from orchestrator.resilience.pool import Lease
from orchestrator.telemetry import metrics
from orchestrator.transports import AgentRequest, AgentResponse

MOST_AT_ONCE = 50
"""Calls of one chunk; together with all others they stay within the agent's slots."""
BEGIN_SECONDS = 10.0
"""How long a chunk begins calls; then what is more urgent may go first."""
TOP_UP_SECONDS = 0.05
"""How often a chunk looks for slots that have become free."""
SPENT_BYTES = 2_500_000
"""Once a chunk's outcomes have so many bytes it begins no more calls.

The batch's history may have 50 MB, and several chunks write to it before another run carries on.
"""
MOST_SPENT_BYTES = SPENT_BYTES + MAX_BLOB_BYTES
"""More than that is not kept: what was answered then is asked for again by a later chunk."""
FIRST_AT_ONCE = 2
"""Calls until an agent's first answer shows how large they are."""
DOUBLE_SECONDS = 0.5
"""Twice as many after each so long: an agent that takes its time must not take more for that."""


class Course:
    """One attempt for each item that the ledger knows nothing of; ``lost`` workers had a try."""

    def __init__(self, means: Means, chunk: Chunk, ledger: Ledger, lost: int) -> None:
        self.refusal: AgentUnavailable | None = None
        """Why nothing more is begun: the agent takes no call, or its rate is used up."""
        self.begun = 0
        """How many calls were made, but for trials that only found the agent still down."""
        self._means = means
        self._chunk = chunk
        self._plan = chunk.plan
        self._ledger = ledger
        self._number = lost + 1
        self._pool = means.pools.of_agent(chunk.plan.agent)
        self._headers = means.headers.get(chunk.plan.agent, {})
        known = ledger.positions
        items = zip(chunk.positions, chunk.items, strict=True)
        self._pending = deque(each for each in items if each[0] not in known)
        self._in_flight: dict[int, str] = {}
        self._callers: dict[int, asyncio.Task[Any] | None] = {}
        """Who makes, or made, the call of each item."""
        self._cut_off: set[int] = set()
        self._is_full = False
        self._since = time.monotonic()
        self._until = self._since + BEGIN_SECONDS
        self._pace = asyncio.Lock()
        self._all_begun = asyncio.Event()

    @property
    def rest(self) -> tuple[int, ...]:
        """Positions of the items that are in flight or yet to begin."""
        return tuple(sorted([*self._in_flight, *(position for position, _ in self._pending)]))

    def drop(self, positions: Collection[int]) -> None:
        """Cut off the calls of these items, and begin none for them; they end as cancelled."""
        unwanted = set(positions)
        for position in unwanted & self._in_flight.keys() - self._cut_off:
            if caller := self._callers.get(position):
                self._cut_off.add(position)
                caller.cancel()
        dropped = [each for each in self._pending if each[0] in unwanted]
        for each in dropped:
            self._pending.remove(each)
        for position in (*self._ledger.withdraw(unwanted), *(each[0] for each in dropped)):
            self._cancelled(position)

    def _tell(self, kind: EventType, position: int, data: dict[str, Any]) -> None:
        """Tell the broker of an attempt, beside the call."""
        outbox, chunk = self._means.outbox, self._chunk
        if not self._plan.events or outbox is None:
            return
        event = Event.of_task(
            kind,
            item_id(chunk.batch_id, position),
            chunk.batch_id,
            self._plan.agent,
            datetime.now(UTC),
            {"attempt": self._number, **data, "batch_id": chunk.batch_id},
            number=self._number,
            traceparent=chunk.traceparent,
        )
        outbox.tell(News(events=(event,)))

    async def run(self) -> None:
        """Make the calls, in the slot of this activity and in as many others as are free."""
        slots = self._pool.slots
        async with asyncio.TaskGroup() as group:
            runners = {group.create_task(self._runner())}
            while self._goes_on:
                most = min(self._most_at_once, len(runners) + len(self._pending))
                while len(runners) < most and slots.try_take():
                    runners.add(group.create_task(self._extra_runner()))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TOP_UP_SECONDS):
                        await self._all_begun.wait()
                self._all_begun.clear()
                runners = {each for each in runners if not each.done()}

    @property
    def _goes_on(self) -> bool:
        """Whether another call is to be begun."""
        return (
            bool(self._pending)
            and self.refusal is None
            and not self._is_full
            and self._ledger.spent < SPENT_BYTES
            and time.monotonic() < self._until
            and not activity.is_worker_shutdown()
        )

    @property
    def _most_at_once(self) -> int:
        """How many calls may be in flight, that their answers find room."""
        size = self._means.sizes.get(self._plan.agent)
        if size is None:
            doublings = int((time.monotonic() - self._since) / DOUBLE_SECONDS)
            return min(MOST_AT_ONCE, FIRST_AT_ONCE << doublings)
        return min(MOST_AT_ONCE, max(1, int((SPENT_BYTES - self._ledger.spent) / size)))

    async def _runner(self) -> None:
        while self._goes_on:
            await self._call(*self._pending.popleft())
        self._all_begun.set()

    async def _extra_runner(self) -> None:
        slots = self._pool.slots
        try:
            # Who waits for a slot goes before a chunk that has another.
            while self._goes_on and not slots.waiting and len(self._in_flight) < self._most_at_once:
                await self._call(*self._pending.popleft())
        finally:
            slots.give_back()

    async def _call(self, position: int, item: str) -> None:
        self._in_flight[position] = item
        self._callers[position] = task = asyncio.current_task()
        timeout = self._timeout()
        try:
            if timeout <= 0:
                self._fail(position, DEADLINE_EXCEEDED, self._too_late(), dead_letter=True)
            elif await self._may_call():
                await self._attempt(position, item, timeout)
            else:
                self._put_back(position)
        except asyncio.CancelledError:
            # The whole chunk may be cut off at the same time.
            if position not in self._cut_off or (task and task.uncancel()):
                raise
            self._in_flight.pop(position)
            self._cancelled(position)
        if self._ledger.overflows:
            await self._ledger.flush()

    async def _attempt(self, position: int, item: str, timeout: float) -> None:
        plan = self._plan
        lease: Lease | None = None
        began = time.perf_counter()
        completions = self._means.completions
        answer_id = answer_id_of(plan.agent, self._number, plan.late, completions)
        try:
            with self._pool.lease(plan.endpoint, (), plan.attempt_timeout) as lease:
                request = self._request(position, item, lease.url, timeout, answer_id)
                metrics.dispatch(plan.agent, seconds_waited())
                self._tell(EventType.STARTED, position, {"instance": lease.instance})
                response = await self._means.transport.send(request)
                accepted = answer_id is not None and response.status == HTTPStatus.ACCEPTED
                if accepted:
                    response = located(response, request, plan.late)
        except AgentUnavailable as error:
            self.refusal = error
            self._put_back(position)
            await self._give_back_token()
        except CallError as error:
            self._failed(position, error, lease, time.perf_counter() - began)
        else:
            seconds = time.perf_counter() - began
            if accepted and answer_id:
                self._accepted(position, response, answer_id, lease.instance, seconds)
            else:
                self._completed(position, response, lease.instance, seconds)

    def _request(
        self, position: int, item: str, url: str, timeout: float, answer_id: str | None
    ) -> AgentRequest:
        task_id, asked = item_id(self._chunk.batch_id, position), from_json(item)
        trace = self._chunk.traceparent or asked.get("traceparent")
        late = self._plan.late
        headers = {
            **call_headers(task_id, self._number, timeout, trace),
            **completion_header(
                self._means.completions,
                task_id,
                answer_id,
                late,
                answer_by(self._deadline, timeout, late),
            ),
        }
        self.begun += 1
        return AgentRequest(
            agent=self._plan.agent,
            url=url,
            payload=asked["payload"],
            headers={**self._headers, **headers},
            timeout=timeout,
        )

    def _timeout(self) -> float:
        """Seconds that an attempt may take now; 0 or less where the deadline has passed."""
        most = self._plan.attempt_timeout
        if not self._chunk.strict:
            return most
        return min(most, (self._deadline - datetime.now(UTC)).total_seconds())

    @property
    def _deadline(self) -> datetime:
        """Of an item whose call begins now."""
        begins = self._chunk.created_at if self._chunk.strict else datetime.now(UTC)
        return begins + timedelta(seconds=self._plan.deadline)

    def _too_late(self) -> str:
        return (
            f"The deadline of {self._plan.deadline:g} s passed after 0 attempts: "
            "the task still waited in its batch"
        )

    async def _may_call(self) -> bool:
        """Wait for the agent's token bucket; False where that takes too long for this chunk."""
        agent, limit = self._plan.agent, self._limit
        if limit is None:
            return True
        async with self._pace:
            while self.refusal is None and not activity.is_worker_shutdown():
                decision = await self._means.buckets.try_take(agent, limit)
                if decision.allowed:
                    return True
                wait = decision.retry_after
                if time.monotonic() + wait >= self._until:
                    self.refusal = AgentUnavailable(agent, BlockedBy.RATE_LIMIT, wait)
                    break
                await asyncio.sleep(wait)
        return False

    async def _give_back_token(self) -> None:
        if (limit := self._limit) is not None:
            await self._means.buckets.give_back(self._plan.agent, limit)

    @property
    def _limit(self) -> RateLimit | None:
        """The agent's, which may change at any time; None where all may pass."""
        return None if self._chunk.paid else self._means.limits.of(self._plan.agent)

    def _put_back(self, position: int) -> None:
        self._pending.appendleft((position, self._in_flight.pop(position)))

    def _completed(
        self, position: int, response: AgentResponse, instance: str, seconds: float
    ) -> None:
        metrics.agent_call(self._plan.agent, SUCCESS, seconds)
        outcome = item_outcomes.completed(position, response, self._number, instance, seconds)
        # Written anew it may be larger than it came.
        size = len(to_json(response.body)) + item_outcomes.OUTCOME_BYTES
        self._means.learn(self._plan.agent, size)
        if size > self._means.max_bytes:
            text = f"The answer has {size:,} bytes when it is written anew, which are too many"
            self._fail(position, ReplyTooLarge.__name__, text)
        elif self._ledger.spent and self._ledger.spent + size > MOST_SPENT_BYTES:
            self._is_full = True
            self._put_back(position)
        else:
            self._end(outcome, size)

    def _accepted(
        self, position: int, response: AgentResponse, answer_id: str, instance: str, seconds: float
    ) -> None:
        """The agent answers later: the item waits for that as a task of its own."""
        attempt = self._made(instance, ACCEPTED, seconds, response.status)
        accepted = Accepted(
            answer_id=answer_id,
            progress=Progress(sent=self._number, made=self._number, attempts=(attempt,)),
            location=response.location,
            pause=response.retry_after,
        )
        self._in_flight.pop(position)
        self._ledger.go_on(Unfinished(position=position, progress=Progress(), accepted=accepted))

    def _made(
        self,
        instance: str | None,
        outcome: str,
        seconds: float,
        status: int | None,
        error: str | None = None,
    ) -> Attempt:
        """The attempt that was made and has ended now, which is counted."""
        metrics.agent_call(self._plan.agent, outcome, seconds)
        return Attempt(
            attempt=self._number,
            agent=self._plan.agent,
            instance=instance,
            outcome=outcome,
            seconds=round(seconds, 6),
            status=status,
            at=datetime.now(UTC) - timedelta(seconds=seconds),
            error=error,
        )

    def _failed(self, position: int, error: CallError, lease: Lease | None, seconds: float) -> None:
        plan, number = self._plan, self._number
        said, instance = str(error)[:ERROR_CHARACTERS], lease.instance if lease else None
        attempt = self._made(instance, type(error).__name__, seconds, error.status, said)
        log_failure(item_id(self._chunk.batch_id, position), attempt)
        if not isinstance(error, RetryableCallError):
            self._fail(position, attempt.outcome, self._after(error), attempt)
        elif lease and lease.trial and still_down(error):
            # The breaker's trial says what was known before: it costs the item nothing.
            self.refusal = AgentUnavailable(plan.agent, BlockedBy.BREAKER, 0)
            self.begun -= 1
            metrics.agent_call_retry(plan.agent, attempt.outcome)
            self._put_back(position)
        elif number >= plan.retry.max_attempts and not plan.fallbacks:
            text = self._after(error)
            self._fail(position, attempt.outcome, text, attempt, dead_letter=True)
        else:
            metrics.agent_call_retry(plan.agent, attempt.outcome)
            progress = Progress(sent=number, made=number, attempts=(attempt,))
            pause = pause_after(error, plan.retry, number, self._means.chance)
            told = {"error": attempt.error, "error_type": attempt.outcome}
            self._tell(EventType.RETRYING, position, {**told, "retry_in": round(pause, 3)})
            self._in_flight.pop(position)
            self._ledger.go_on(Unfinished(position=position, progress=progress, pause=pause))

    def _after(self, error: CallError) -> str:
        times = f"{self._number} attempt" + ("" if self._number == 1 else "s")
        return f"Failed after {times}: {words(error)}"

    def _fail(
        self,
        position: int,
        kind: str,
        text: str,
        attempt: Attempt | None = None,
        *,
        dead_letter: bool = False,
    ) -> None:
        is_dead = dead_letter and self._plan.dead_letter
        outcome = item_outcomes.failed(position, kind, text, attempt, dead_letter=is_dead)
        self._end(outcome, item_outcomes.OUTCOME_BYTES + len(text.encode()))

    def _cancelled(self, position: int) -> None:
        self._ledger.end(item_outcomes.cancelled(position), item_outcomes.OUTCOME_BYTES)
        # Whoever has cancelled it looks whether it has ended.
        activity.heartbeat(self._ledger.known())

    def _end(self, outcome: ItemOutcome, size: int) -> None:
        self._in_flight.pop(outcome.position)
        self._ledger.end(outcome, size)
