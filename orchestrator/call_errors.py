"""What an attempt to call an agent can end with; the picture of all errors is in errors.py."""

from orchestrator.errors import OrchestratorError


class CallError(OrchestratorError):
    """One attempt to call an agent failed.

    Args:
        message: one sentence for people: who, where, what.
        status: the agent's HTTP status, if it answered.
        excerpt: the beginning of the agent's answer; never logged.
        retry_after: seconds the agent asked to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        excerpt: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.excerpt = excerpt
        self.retry_after = retry_after


class RetryableCallError(CallError):
    """Another attempt may succeed."""


class AgentUnreachable(RetryableCallError):
    """No connection could be made; the agent saw nothing."""


class AgentDisconnected(RetryableCallError):
    """The connection broke after the request was sent; the agent may have done the work."""


class AgentTimedOut(RetryableCallError):
    """The whole answer did not arrive within the attempt's timeout."""


class AgentOverloaded(RetryableCallError):
    """The agent answered 429."""


class AgentFailed(RetryableCallError):
    """The agent answered 408, 425 or 5xx."""


class PermanentCallError(CallError):
    """No further attempt would help."""


class AgentRejected(PermanentCallError):
    """The agent answered with a status that is neither 2xx nor worth a retry."""


class OutcomeUnknown(PermanentCallError):
    """The request was sent to an agent that is not idempotent, and its outcome is not known."""


class ReplyTooLarge(PermanentCallError):
    """The agent's answer is over the size cap."""


class ReplyUnreadable(PermanentCallError):
    """The agent's answer is not JSON."""
