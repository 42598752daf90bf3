"""The gauges that are read from the last overview and counts when Prometheus asks.

They are about the whole and not about this process: each API process tells the same.
"""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.dependencies import Services
from orchestrator.engine.batch_lists import OpenBatches
from orchestrator.engine.fleet_view import FleetView
from orchestrator.engine.overview import Snapshot
from orchestrator.engine.task_counts import Counts
from orchestrator.fleet.views import agent_breaker, is_healthy
from orchestrator.models import TaskState
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.values import MAX_PRIORITY, MIN_PRIORITY

PRIORITIES = range(MAX_PRIORITY, MIN_PRIORITY - 1, -1)
_WORDS = {BreakerState.FORCED_OPEN: "open", BreakerState.DISABLED: "closed"}
_BREAKER_NUMBERS = {"closed": 0, "half_open": 1, "open": 2}
COUNT_SECONDS = 2.0
"""How long Prometheus waits for the engine to count; then it reads what was counted before."""
FINAL_STATES = (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED)


class OverviewCollector(Collector):
    """The gauges, for any thread but the loop's own, which it asks."""

    def __init__(self, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._services = services
        self._loop = loop

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that the registry does not collect to know: it would do so in the loop."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        counts = self._counts()
        snapshot = self._services.overview.last
        yield _gauge(
            "orchestrator_engine_up",
            "1 if the engine answered when it was asked last",
            snapshot.reachable,
        )
        yield from _of_tasks(counts, snapshot.batches)
        yield from _of_batches(snapshot.batches)
        yield from _of_queues(snapshot)
        yield from self._of_agents()
        yield self._parked(snapshot)

    def _counts(self) -> Counts:
        """The counts of tasks; those known before if the loop hangs or has ended."""
        counts = self._services.counts
        if not self._services.overview.last.reachable:
            return counts.last
        asking = counts.get(COUNT_SECONDS)
        try:
            asked = asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError:
            asking.close()
            return counts.last
        try:
            return asked.result(2 * COUNT_SECONDS)
        except (TimeoutError, CancelledError):
            return counts.last

    def _of_agents(self) -> Iterator[Metric]:
        agents = self._services.fleet.agents.items()
        yield _labelled(
            "orchestrator_agent_health",
            "1 if the agent answers its health check",
            ("agent",),
            (((name,), is_healthy(record)) for name, record in agents),
        )
        yield _labelled(
            "orchestrator_circuit_breaker_state",
            "0 if the agent's breaker is closed, 1 half-open, 2 open",
            ("agent",),
            (
                ((name,), _BREAKER_NUMBERS[word])
                for name, word in breakers(self._services.fleet).items()
            ),
        )

    def _parked(self, snapshot: Snapshot) -> Metric:
        """What waits in the queues of agents that take no call."""
        refusals = ((name, self._services.admission.refusal_of(name)) for name in snapshot.queues)
        return _labelled(
            "orchestrator_parked_tasks",
            "Calls that wait for an agent which takes none now, by what keeps it from that",
            ("agent", "reason"),
            (
                ((name, refusal.blocked_by), sum(snapshot.queues[name].backlog.values()))
                for name, refusal in refusals
                if refusal is not None
            ),
        )


def breakers(fleet: FleetView) -> dict[str, str]:
    """Of each agent as one word: what an operator holds open or closed is that."""
    now = datetime.now(UTC)
    states = {name: agent_breaker(each, now) for name, each in fleet.agents.items()}
    return {name: _WORDS.get(state, state) for name, state in states.items()}


def _of_tasks(counts: Counts, batches: OpenBatches) -> Iterator[Metric]:
    """How many there are; nothing as long as the engine has not said."""
    if not counts.is_known:
        return
    active = counts.active(batches)
    yield _gauge("orchestrator_active_tasks", "Tasks that have not ended", active)
    yield _labelled(
        "orchestrator_tasks",
        "Tasks that the engine keeps: active, completed, failed or cancelled",
        ("status",),
        [(("active",), active), *(((each,), counts.tasks[each]) for each in FINAL_STATES)],
    )
    yield _gauge(
        "orchestrator_dead_letters",
        "Tasks that failed for good and may be run again",
        counts.dead_letters,
    )


def _of_batches(batches: OpenBatches) -> Iterator[Metric]:
    yield _gauge("orchestrator_open_batches", "Batches that have not ended", batches.batches)
    yield _labelled(
        "orchestrator_batch_items",
        "Items of open batches: pending, completed, failed or cancelled",
        ("status",),
        (
            ((name,), getattr(batches.items, name))
            for name in ("pending", "completed", "failed", "cancelled")
        ),
    )
    yield _gauge(
        "orchestrator_coalesced_tasks",
        "Coalesced tasks that have not ended",
        batches.coalesced.pending,
    )


def _of_queues(snapshot: Snapshot) -> Iterator[Metric]:
    backlog = snapshot.backlog
    yield _labelled(
        "orchestrator_queue_size",
        "Calls that wait, by priority",
        ("priority",),
        (((str(level),), backlog[level]) for level in PRIORITIES),
    )
    yield _labelled(
        "orchestrator_agent_queue_size",
        "Calls that wait, by agent and priority",
        ("agent", "priority"),
        (
            ((agent, str(level)), queue.backlog.get(level, 0))
            for agent, queue in snapshot.queues.items()
            for level in PRIORITIES
        ),
    )
    yield _labelled(
        "orchestrator_agent_has_worker",
        "1 if a worker takes the agent's calls",
        ("agent",),
        (((agent,), queue.has_worker) for agent, queue in snapshot.queues.items()),
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, float(value))


def _labelled(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=labels)
    for each, value in values:
        metric.add_metric(each, float(value))
    return metric
