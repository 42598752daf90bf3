"""What this process counts for Prometheus; docs/metrics.md tells what each metric means.

What only the engine knows (tasks, queues, batches, dead letters) is not counted but read from the
last overview, where somebody asks for it.
"""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from orchestrator import __version__

disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_DISPATCH_SECONDS = (0.001, 0.0025, *SECONDS, 900, 3600)
"""A call may wait for its turn, its rate or its agent much longer than it takes."""

_build = Gauge("orchestrator_build_info", "1; its label is the version", ["version"])
_build.labels(__version__).set(1)
_requests_total = Counter(
    "orchestrator_requests_total",
    "Task submissions accepted (202) or refused, by agent and HTTP status",
    ["agent", "status"],
)
_request_seconds = Histogram(
    "orchestrator_request_duration_seconds",
    "Seconds until a task submission was answered",
    ["agent"],
    buckets=SECONDS,
)
_admission_refusals = Counter(
    "orchestrator_admission_refusals_total",
    "Tasks refused before they were started: agent_unavailable, rate_limit or queue_full",
    ["agent", "reason"],
)
_dispatch_seconds = Histogram(
    "orchestrator_dispatch_duration_seconds",
    "Seconds from when a call was due until it was sent to the agent",
    ["agent"],
    buckets=_DISPATCH_SECONDS,
)
_messages = Counter(
    "orchestrator_messages_total",
    "Messages from the broker: accepted, refused (a dead letter there), or postponed",
    ["outcome"],
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
    buckets=SECONDS,
)
_retries = Counter(
    "orchestrator_agent_call_retries_total",
    "Attempts after which the agent is called again, by outcome",
    ["agent", "outcome"],
)
_waits = Counter(
    "orchestrator_agent_call_waits_total",
    "Calls that were given back to the engine since the agent takes none now, by the reason",
    ["agent", "reason"],
)
_callback_deliveries = Counter(
    "orchestrator_callback_deliveries_total",
    "Attempts to deliver a callback: delivered, failed (tried again), or dead (given up)",
    ["outcome"],
)
_callback_seconds = Histogram(
    "orchestrator_callback_delivery_duration_seconds",
    "Seconds that an attempt to deliver a callback took",
    buckets=SECONDS,
)
_config = Gauge(
    "orchestrator_config_info",
    "1; its label is the version of the configuration that this process goes by",
    ["version"],
)
_config_well = Gauge(
    "orchestrator_config_last_reload_successful",
    "0 if the configuration's file was refused when it was read last",
)
_config_well.set(1)


def config_version(version: str) -> None:
    """This process goes by that version, and no longer by another."""
    _config.clear()
    _config.labels(version).set(1)


def config_reload(*, taken_over: bool) -> None:
    """A configuration was read again."""
    _config_well.set(taken_over)


def submission(agent: str | None, status: int, seconds: float, tasks: int = 1) -> None:
    """Count the answer to so many tasks at once; ``agent`` is none where none was chosen."""
    _counter(_requests_total, agent or "none", str(int(status))).inc(tasks)
    _histogram(_request_seconds, agent or "none").observe(seconds)


def admission_refusal(agent: str, reason: str) -> None:
    """Count one refusal; ``reason`` is agent_unavailable, rate_limit or queue_full."""
    _counter(_admission_refusals, agent, reason).inc()


def dispatch(agent: str, seconds: float) -> None:
    """A call goes out so long after it was due; clocks that differ make it 0 at least."""
    _histogram(_dispatch_seconds, agent).observe(max(0.0, seconds))


def message(outcome: str) -> None:
    """Count what became of one message; ``outcome`` is accepted, refused or postponed."""
    _counter(_messages, outcome).inc()


def agent_call(agent: str, outcome: str, seconds: float) -> None:
    """Count one attempt; ``outcome`` is success or the call error's type."""
    _counter(_agent_calls, agent, outcome).inc()
    _histogram(_agent_call_seconds, agent).observe(seconds)


def agent_call_retry(agent: str, outcome: str, times: int = 1) -> None:
    """Count attempts that ended with ``outcome`` and are followed by another."""
    _counter(_retries, agent, outcome).inc(times)


def agent_call_wait(agent: str, reason: str) -> None:
    """Count a call, or a chunk of them, that is to come again; ``reason`` is what blocks it."""
    _counter(_waits, agent, reason).inc()


def callback_delivery(outcome: str, seconds: float) -> None:
    """Count one attempt to deliver a callback; ``outcome`` is delivered, failed or dead."""
    _counter(_callback_deliveries, outcome).inc()
    _callback_seconds.observe(seconds)


# To look a metric's labels up costs as much as to count.
@cache
def _counter(metric: Counter, *labels: str) -> Counter:
    return metric.labels(*labels)


@cache
def _histogram(metric: Histogram, *labels: str) -> Histogram:
    return metric.labels(*labels)
