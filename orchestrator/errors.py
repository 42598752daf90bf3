"""Every error of the domain, in one tree; those of calls are in call_errors.py.

OrchestratorError
├── ConfigurationError          config.yaml or the environment is wrong
├── StartupError                a part cannot start; its message is the one line a user sees
├── UnknownPattern              no rule and no capability matches the task
├── PayloadTooLarge             a task's payload is over the size cap
├── TaskNotFound                the engine knows no such task
├── IdempotencyConflict         an Idempotency-Key was used before with another body
├── AgentUnavailable            no instance of the agent may be called now
├── RateLimited                 the agent's token bucket is empty
├── QueueFull                   as many tasks wait as may
├── OrderRefused                an operator's order cannot be carried out
├── DeadLetterNotFound          no such dead letter waits
├── RedriveNotFound             no such order about many dead letters
├── CallbackRefused             a task's callback_url may not be called
├── CallbackNotFound            no such callback
├── BatchRefused                items of a batch are wrong
├── BatchNotFound               no such batch
├── AggregateNotFound           no such aggregate
├── CancellationNotFound        no such order to cancel many tasks
├── StreamsFull                 as many live streams are open as may be
├── UnknownEvent                no such event, after which a stream could go on
├── CompletionUnknown           a completion URL was not made here
├── CompletionExpired           a completion URL is too old
├── CompletionRefused           a completion URL was used, or its task waits for it no more
├── CompletionEarly             the task does not wait for the answer yet
├── Unauthenticated             who sends the request did not show a good key or token
├── Forbidden                   whoever sends it may not do that
│   └── TenantForbidden         nor for that tenant
├── QuotaExceeded               the tenant has as much as it may
├── EngineUnavailable           the engine did not answer in time
│   ├── EngineBusy              nor was it asked, since it answers nobody
│   ├── PayloadUnreadable       a payload is encrypted with a key that is not there, or changed
│   ├── ObjectMissing           a payload that was stored outside of the engine is gone
│   └── StorageUnavailable      the storage of large payloads does not answer
├── EngineRefused               the engine finds what was asked for wrong
├── MessageRefused              a message is wrong, and will be however often it comes
├── MessageDelayed              a message's task cannot be started now, but later
├── BrokerUnavailable           the broker has not confirmed what was sent to it
└── CallError                   one attempt to call an agent ended without a usable answer
    ├── RetryableCallError      another attempt may succeed
    │   ├── AgentUnreachable    no connection; nothing was sent
    │   ├── AgentDisconnected   the connection broke after the request was sent
    │   ├── AgentTimedOut       no complete answer within the attempt's timeout
    │   ├── AgentOverloaded     429: the agent asks for fewer calls
    │   └── AgentFailed         408, 425 or 5xx
    └── PermanentCallError      no attempt will succeed, or none may be made
        ├── AgentRejected       any other status that is not 2xx
        ├── OutcomeUnknown      it may have been done, and the agent must not do it twice
        ├── ReplyTooLarge       the answer is over the size cap
        └── ReplyUnreadable     the answer is not JSON

Inner code raises these; activities turn call errors into the engine's ApplicationError, and
api/errors.py alone turns the rest into HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.batches import BadItem
from orchestrator.models import BlockedBy, RateLimit
from orchestrator.resilience.limiter import Decision


class OrchestratorError(Exception):
    """The root: its text is meant for people."""


@dataclass(frozen=True)
class ConfigurationProblem:
    """One wrong place in the configuration: ``where`` is file, line and key."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigurationError(OrchestratorError):
    """All problems of a configuration at once, one a line."""

    def __init__(self, problems: Sequence[ConfigurationProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class StartupError(OrchestratorError):
    """A part cannot start: a port is taken, the engine is not there, the data do not fit."""


class UnknownPattern(OrchestratorError):
    """Neither a routing rule nor an agent's capabilities serve the task.

    ``closest`` names the configured patterns most like the one asked for, best first.
    """

    def __init__(
        self, pattern: str | None, closest: Sequence[str], capabilities: Sequence[str]
    ) -> None:
        text = f"Unknown pattern '{pattern}'" if pattern is not None else "No agent"
        if capabilities:
            wanted = ", ".join(capabilities)
            text += (
                f"; no agent has all of: {wanted}"
                if pattern is not None
                else f" has all of: {wanted}"
            )
        if closest:
            text += f"; did you mean {' or '.join(repr(name) for name in closest)}?"
        super().__init__(text)
        self.closest = tuple(closest)


class PayloadTooLarge(OrchestratorError):
    """A task's input or result is over the cap below the engine's own limit; bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size:,} bytes are too many; at most {limit:,} are accepted")


class TaskNotFound(OrchestratorError):
    """The engine has no task of that id: never submitted, or past its retention."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"Task '{task_id}' is not known")


class IdempotencyConflict(OrchestratorError):
    """The same Idempotency-Key came with a different request."""

    def __init__(self, task_id: str, kind: str = "task") -> None:
        super().__init__(
            f"This Idempotency-Key was used before with another request ({kind} {task_id}); "
            "send the same body again, or a new key"
        )


class AgentUnavailable(OrchestratorError):
    """No instance of the agent may be called now: nothing was sent.

    Args:
        agent: its name.
        blocked_by: what keeps the calls away.
        retry_after: seconds after which one may be tried, where that is known.
    """

    def __init__(self, agent: str, blocked_by: BlockedBy, retry_after: float | None = None) -> None:
        super().__init__(f"Agent '{agent}' is currently unavailable")
        self.agent = agent
        self.blocked_by = blocked_by
        self.retry_after = retry_after


class RateLimited(OrchestratorError):
    """The agent's token bucket is empty; ``retry_after`` seconds fill it by one."""

    def __init__(self, agent: str, retry_after: float, limit: RateLimit) -> None:
        super().__init__(f"Rate limit exceeded for agent '{agent}'")
        self.agent = agent
        self.retry_after = retry_after
        self.limit = limit


class QueueFull(OrchestratorError):
    """As many tasks wait as ``priority_queue.max_queue_size`` allows."""

    def __init__(self) -> None:
        super().__init__("Queue is full")


class OrderRefused(OrchestratorError):
    """An operator's order names something that is not there, or contradicts what is.

    ``kind`` is ``not_found``, ``conflict`` or ``invalid``.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class DeadLetterNotFound(OrchestratorError):
    """No dead letter of that task waits."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"Task '{task_id}' is not among the dead letters")


class RedriveNotFound(OrchestratorError):
    """The engine has no order about many dead letters of that id."""

    def __init__(self, redrive_id: str) -> None:
        super().__init__(f"Redrive '{redrive_id}' is not known")


class CallbackRefused(OrchestratorError):
    """A task's ``callback_url`` may not be called; of a batch's item, that is number ``index``."""

    def __init__(self, reason: str, index: int | None = None) -> None:
        item = "" if index is None else f"item {index}: "
        super().__init__(f"{item}callback_url: {reason}")


class CallbackNotFound(OrchestratorError):
    """The engine has no callback of that id: none was asked for, or it is past its retention."""

    def __init__(self, callback_id: str) -> None:
        super().__init__(f"Callback '{callback_id}' is not known")


class BatchRefused(OrchestratorError):
    """Items of a batch are wrong, so nothing was started.

    Args:
        bad: what is wrong with them; the list may be cut.
        bad_items: how many they are, of ``total``.
    """

    def __init__(self, bad: Sequence[BadItem], bad_items: int, total: int) -> None:
        first = ": ".join(filter(None, (bad[0].field, bad[0].message)))
        super().__init__(
            f"{bad_items:,} of {total:,} items are wrong, and nothing was started; "
            f"the first is item {bad[0].index}: {first}"
        )
        self.bad = tuple(bad)
        self.bad_items = bad_items


class BatchNotFound(OrchestratorError):
    """The engine has no batch of that id: never submitted, or past its retention."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"Batch '{batch_id}' is not known")


class AggregateNotFound(OrchestratorError):
    """The engine has no aggregate of that id: never asked for, or past its retention."""

    def __init__(self, aggregate_id: str) -> None:
        super().__init__(f"Aggregate '{aggregate_id}' is not known")


class CancellationNotFound(OrchestratorError):
    """The engine has no order to cancel many tasks of that id."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"Cancellation '{order_id}' is not known")


class StreamsFull(OrchestratorError):
    """So many live streams are open that this process takes no more."""

    def __init__(self, most: int) -> None:
        super().__init__(f"All {most} live streams of this process are in use; ask GET /status")


class UnknownEvent(OrchestratorError):
    """A stream was asked to go on after an event whose id is none of its."""

    def __init__(self, event_id: str) -> None:
        super().__init__(
            f"Last-Event-ID: '{event_id[:80]}' is not the id of an event of this stream; leave it "
            "out to get all events"
        )


class CompletionUnknown(OrchestratorError):
    """The token of a completion URL was not signed with our secret."""

    def __init__(self) -> None:
        super().__init__("This completion URL is not known; use the X-Completion-URL of the call")


class CompletionExpired(OrchestratorError):
    """The time in which the agent could answer is over."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"This completion URL has expired; task '{task_id}' waits for it no more")


class CompletionRefused(OrchestratorError):
    """The URL was used before, or the task goes on, or has ended, without it."""


class CompletionEarly(OrchestratorError):
    """The answer comes before the engine has written down that the agent took the call."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"Task '{task_id}' does not wait for this answer yet; send it again")


class Unauthenticated(OrchestratorError):
    """Who sends the request is not known; the text never repeats what was ``shown``, if it was."""

    def __init__(self, message: str, *, shown: bool = True) -> None:
        super().__init__(message)
        self.shown = shown


class Forbidden(OrchestratorError):
    """Whoever sends the request may not do that; ``scope`` is what it would take, if that is it."""

    def __init__(self, message: str, scope: str | None = None) -> None:
        super().__init__(message)
        self.scope = scope


class TenantForbidden(Forbidden):
    """It is for another tenant than the caller's."""

    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"Your key is not for tenant '{tenant}'; leave tenant out, or use that tenant's key"
        )


class QuotaExceeded(OrchestratorError):
    """The tenant has as much as it may.

    Args:
        tenant: whose quota it is.
        policy: which: ``rate``, ``running`` or ``daily``.
        what: it in words, such as ``100 tasks a day``.
        retry_after: seconds until there may be room.
        decision: of the tenant's bucket, where that refused.
        most: what it may have, where a count refused.
    """

    def __init__(
        self,
        tenant: str,
        policy: str,
        what: str,
        retry_after: float,
        decision: Decision | None = None,
        most: int = 0,
    ) -> None:
        super().__init__(f"Quota exceeded for tenant '{tenant}': at most {what}")
        self.tenant = tenant
        self.policy = policy
        self.retry_after = retry_after
        self.decision = decision
        self.most = most


class EngineUnavailable(OrchestratorError):
    """The engine is unreachable, or slower than the deadline of the call."""


class EngineBusy(EngineUnavailable):
    """The engine was not asked, since it answers nobody: what was wanted has surely not begun."""


class EngineRefused(OrchestratorError):
    """The engine will not do what was asked, however often: its reason is for whoever asked."""


class PayloadUnreadable(EngineUnavailable):
    """What the engine or the storage holds cannot be read: no key fits, or it was changed."""


class ObjectMissing(EngineUnavailable):
    """A payload that was stored outside of the engine is not there any more."""

    def __init__(self, key: str, place: str) -> None:
        super().__init__(
            f"The payload {key} is not in {place}: it was removed, or this process has another "
            "payloads.storage than the one that stored it"
        )


class StorageUnavailable(EngineUnavailable):
    """The storage of large payloads does not answer, or refuses."""


class MessageRefused(OrchestratorError):
    """A message cannot become a task: ``status`` is what HTTP would answer to the same body."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class MessageDelayed(OrchestratorError):
    """A message's task cannot be started now; ``seconds`` until it should be tried again."""

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds


class BrokerUnavailable(OrchestratorError):
    """The broker is not there, or has not confirmed what was sent to it in time."""
