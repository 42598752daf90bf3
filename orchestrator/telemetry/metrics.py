"""Prometheus metrics of this process.

Counters and histograms are counted here; what only the engine knows (active tasks, queues) is read
from the last overview when the metrics are asked for.
"""

from functools import cache

from prometheus_client import Counter, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

_requests_total = Counter(
    "orchestrator_requests_total",
    "Task submissions accepted (202) or refused, by agent and HTTP status",
    ["agent", "status"],
)
_request_seconds = Histogram(
    "orchestrator_request_duration_seconds",
    "Seconds until a task submission was answered",
    ["agent"],
    buckets=_SECONDS,
)
_admission_refusals = Counter(
    "orchestrator_admission_refusals_total",
    "Tasks refused before they were started: agent_unavailable, rate_limit or queue_full",
    ["agent", "reason"],
)
_agent_calls = Counter(
    "orchestrator_agent_calls_total",
    "Attempts to call an agent, by outcome",
    ["agent", "outcome"],
)
_agent_call_seconds = Histogram(
    "orchestrator_agent_call_duration_seconds",
    "Seconds that an attempt to call an agent took",
    ["agent"],
    buckets=_SECONDS,
)


def submission(agent: str | None, status: int, seconds: float, tasks: int = 1) -> None:
    """Count the answer to so many tasks at once; ``agent`` is none where none was chosen."""
    _requests_total.labels(agent or "none", str(int(status))).inc(tasks)
    _request_seconds.labels(agent or "none").observe(seconds)


def admission_refusal(agent: str, reason: str) -> None:
    """Count one refusal; ``reason`` is agent_unavailable, rate_limit or queue_full."""
    _admission_refusals.labels(agent, reason).inc()


def agent_call(agent: str, outcome: str, seconds: float) -> None:
    """Count one attempt; ``outcome`` is success or the call error's type."""
    calls, call_seconds = _of_agent(agent, outcome)
    calls.inc()
    call_seconds.observe(seconds)


@cache
def _of_agent(agent: str, outcome: str) -> tuple[Counter, Histogram]:
    """The two of these labels, whose look-up costs as much as counting."""
    return _agent_calls.labels(agent, outcome), _agent_call_seconds.labels(agent)
