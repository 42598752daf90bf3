"""Each metric of docs/metrics.md moves as it says, and as GET /metrics says in JSON."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent, Call, Reply
from tests.support.metrics import Metrics, as_json, metrics_of, page, promtool, table, texts_of
from tests.support.receivers import SECRET, hook
from tests.support.stack import Stack, eventually, free_port, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

WAIT = {"Prefer": "wait=30"}
PROMETHEUS = {"Accept": "text/plain"}


def ill(call: Call) -> Reply:
    """Answers its work, but not its health check."""
    return Reply(status=503 if call.path == "/health" else 200)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[dict[str, Agent]]:
    """One for each course; ``ill`` fails its health checks."""
    async with Agent() as work, Agent() as slow, Agent(decide=ill) as unwell:
        yield {"work": work, "slow": slow, "ill": unwell}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    agents: dict[str, Agent], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product with a rule for each agent, and two more for the first."""
    named = {name: {"instances": [{"url": each.url}]} for name, each in agents.items()}
    limit = {"rate_limit": {"rate": 0.6, "burst": 1, "mode": "reject"}}
    config: dict[str, Any] = {
        "agents": {**named, "limited": named["work"] | limit},
        "routing_rules": [
            {"pattern": name, "target_agent": name, "endpoint": "/work"}
            for name in (*named, "limited")
        ]
        + [
            {
                "pattern": dispatch,
                "target_agent": "work",
                "endpoint": "/work",
                "dispatch": dispatch,
            }
            for dispatch in ("inline", "coalesced")
        ],
        "load_balancing": {"health_check_interval": 1},
        "callbacks": {"secret": SECRET, "allow": ["127.0.0.1"], "retry_delays": [0.1]},
        "error_recovery": {
            "max_retries": 1,
            "retry_delay": 0.3,
            "retry_jitter": 0,
            "circuit_breaker_threshold": 1000,
            "when_unavailable": "queue",
        },
    }
    async with running(tmp_path_factory.mktemp("stack"), config) as started:

        async def counted() -> bool:
            of_apis = (await texts_of(started))[: len(started.apis)]
            return all("orchestrator_tasks{" in text for text in of_apis)

        await eventually(counted, what="the first count")
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the product's API."""
    async with stack.client() as client:
        yield client


def answers(agent: Agent, *replies: Reply) -> None:
    """Have the calls of each task answered so, one after another; health checks are passed."""

    def decide(call: Call) -> Reply:
        if call.path == "/health":
            return Reply()
        turn = len(agent.calls_of(call.headers["Idempotency-Key"]))
        return replies[min(turn, len(replies)) - 1]

    agent.behave(decide)


async def submit(api: httpx.AsyncClient, pattern: str, **headers: str) -> httpx.Response:
    """Hand in a task."""
    return await api.post("/orchestrate", json={"pattern": pattern, "payload": {}}, headers=headers)


async def reaches(
    stack: Stack, condition: Callable[[Metrics], bool], what: str = "the metrics"
) -> Metrics:
    """The metrics once they are so; the gauges follow the engine within some seconds."""

    async def so() -> Metrics | None:
        found = await metrics_of(stack)
        return found if condition(found) else None

    found = await eventually(so, what=what)
    assert isinstance(found, Metrics)
    return found


@pytest.mark.parametrize("pattern", ["work", "inline", "coalesced"])
async def test_a_task_that_is_tried_twice(
    api: httpx.AsyncClient, stack: Stack, agents: dict[str, Agent], pattern: str
) -> None:
    """One submission, two attempts, one retry after its pause; by all ways of dispatch."""
    answers(agents["work"], Reply(status=503), Reply())
    before = await metrics_of(stack)
    answer = (await submit(api, pattern, **WAIT)).json()
    after = await metrics_of(stack)

    def grown(name: str, **labels: str) -> float:
        labels = {"agent": "work", **labels}
        return after.value(name, **labels) - before.value(name, **labels)

    assert ("completed", 2) == (answer["status"], answer["attempts"])
    assert 1 == grown("orchestrator_requests_total", status="202")
    assert 1 == grown("orchestrator_request_duration_seconds_count")
    assert 1 == grown("orchestrator_agent_calls_total", outcome="AgentFailed")
    assert 1 == grown("orchestrator_agent_calls_total", outcome="success")
    assert 1 == grown("orchestrator_agent_call_retries_total", outcome="AgentFailed")
    assert 2 == grown("orchestrator_agent_call_duration_seconds_count")
    assert 2 == grown("orchestrator_dispatch_duration_seconds_count")
    assert 0 <= grown("orchestrator_dispatch_duration_seconds_sum") < 5
    started = {"operation": "StartWorkflowExecution"}
    name = "temporal_request_latency_seconds_count"
    assert after.value(name, **started) == before.value(name, **started) + 1


async def test_what_is_refused(api: httpx.AsyncClient, stack: Stack) -> None:
    """An unknown pattern has no agent; a limit has its reason."""
    before = await metrics_of(stack)
    asked = ("no such", "limited", "limited")
    statuses = [(await submit(api, each, **WAIT)).status_code for each in asked]
    after = await metrics_of(stack)

    assert [400, 200, 429] == statuses
    for name, labels in (
        ("orchestrator_requests_total", {"agent": "none", "status": "400"}),
        ("orchestrator_requests_total", {"agent": "limited", "status": "429"}),
        ("orchestrator_admission_refusals_total", {"agent": "limited", "reason": "rate_limit"}),
    ):
        assert before.value(name, **labels) + 1 == after.value(name, **labels)


async def test_a_task_that_fails_for_good(
    api: httpx.AsyncClient, stack: Stack, agents: dict[str, Agent]
) -> None:
    """It is failed and a dead letter, until it is discarded; its last attempt is not retried."""
    answers(agents["work"], Reply(status=500))
    before = await metrics_of(stack)
    failed = (await submit(api, "work", **WAIT)).json()
    letters = before.value("orchestrator_dead_letters")
    counted = before.value("orchestrator_tasks", status="failed")
    after = await reaches(
        stack,
        lambda now: (
            now.value("orchestrator_dead_letters") == letters + 1
            and now.value("orchestrator_tasks", status="failed") == counted + 1
        ),
    )
    await api.post(f"/dead-letters/{failed['task_id']}/discard", json={})
    await reaches(stack, lambda now: now.value("orchestrator_dead_letters") == letters)

    assert "failed" == failed["status"]
    name, labels = "orchestrator_agent_call_retries_total", {"agent": "work"}
    assert before.value(name, **labels) + 1 == after.value(name, **labels)


async def test_an_agent_that_is_held_back(api: httpx.AsyncClient, stack: Stack) -> None:
    """Its breaker is open, its calls wait and are parked; nothing of that stays afterwards.

    The worker hears of it within a second, and its polls that are under way give calls back.
    """
    await api.post("/agents/ill/trip", json={"reason": "test"})
    ids = []
    labels = {"agent": "ill", "reason": "breaker"}

    async def parked_some() -> Metrics | None:
        ids.append((await submit(api, "ill")).json()["task_id"])
        found = await metrics_of(stack)
        parked = found.value("orchestrator_parked_tasks", **labels)
        waited = found.value("orchestrator_agent_call_waits_total", **labels)
        active = found.value("orchestrator_active_tasks")
        return found if parked and waited and active else None

    waiting = await eventually(parked_some, what="parked tasks")
    state = (await api.get("/metrics")).json()["agents_status"]["ill"]
    await api.post("/agents/ill/reset", json={})
    for each in ids:
        await api.get(f"/status/{each}", headers=WAIT)
    await reaches(
        stack,
        lambda now: (
            now.value("orchestrator_parked_tasks", agent="ill") == 0
            and now.value("orchestrator_active_tasks") == 0
            and now.value("orchestrator_circuit_breaker_state", agent="ill") == 0
        ),
        "nothing parked",
    )

    parked = waiting.value("orchestrator_parked_tasks", **labels)
    assert parked == waiting.value("orchestrator_queue_size", priority="3")
    assert parked == waiting.value("orchestrator_agent_queue_size", agent="ill", priority="3")
    assert 2 == waiting.value("orchestrator_circuit_breaker_state", agent="ill")
    assert 0 < waiting.value("orchestrator_active_tasks") <= len(ids)
    assert "open" == state


async def test_the_state_of_engine_and_agents(stack: Stack) -> None:
    """All up, with workers; one agent is ill."""
    found = await reaches(
        stack,
        lambda now: (
            now.value("orchestrator_agent_health", agent="work") == 1
            and now.value("orchestrator_agent_health", agent="ill") == 0
        ),
    )
    assert 1 == found.value("orchestrator_engine_up")
    assert 4 == found.value("orchestrator_agent_has_worker")
    assert all("orchestrator_build_info{" in text for text in await texts_of(stack))


async def test_batches_and_coalesced_tasks(
    api: httpx.AsyncClient, stack: Stack, agents: dict[str, Agent]
) -> None:
    """What is open shows while an agent takes its time, and is gone afterwards."""
    answers(agents["slow"], Reply(hang=True))
    answers(agents["work"], Reply(hang=True))
    items = [{"pattern": "slow", "payload": {"n": number}} for number in range(3)]
    batch = (await api.post("/orchestrate/batch", json=items)).json()
    single = (await submit(api, "coalesced")).json()

    shown = await reaches(
        stack,
        lambda now: (
            now.value("orchestrator_batch_items", status="pending") == 3
            and now.value("orchestrator_coalesced_tasks") == 1
            and now.value("orchestrator_active_tasks") == 4
        ),
        "the open items",
    )
    agents["slow"].release()
    agents["work"].release()
    await api.get(f"/batches/{batch['batch_id']}", headers=WAIT)
    await api.get(f"/status/{single['task_id']}", headers=WAIT)
    await reaches(
        stack,
        lambda now: (
            now.value("orchestrator_open_batches")
            + now.value("orchestrator_batch_items")
            + now.value("orchestrator_coalesced_tasks")
            + now.value("orchestrator_active_tasks")
            == 0
        ),
        "the end of all",
    )

    assert 1 == shown.value("orchestrator_open_batches")


async def test_a_callback_that_arrives_late(
    api: httpx.AsyncClient, stack: Stack, agents: dict[str, Agent]
) -> None:
    """An attempt that failed, and one that delivered it."""
    answers(agents["work"], Reply())
    before = await metrics_of(stack)
    async with Agent() as receiver:
        receiver.script(Reply(status=503), Reply())
        task = {"pattern": "work", "payload": {}, "callback_url": hook(receiver)}
        await api.post("/orchestrate", json=task)
        name = "orchestrator_callback_deliveries_total"
        after = await reaches(
            stack,
            lambda now: now.value(name, outcome="delivered") == 1,
            "the delivery",
        )

    assert 0 == before.value(name)
    assert 1 == after.value(name, outcome="failed")
    assert 2 == after.value("orchestrator_callback_delivery_duration_seconds_count")


async def test_json_and_prometheus_agree(api: httpx.AsyncClient, stack: Stack) -> None:
    """Every number that both have is the same, once nothing moves."""

    async def same() -> Any:
        numbers = (await api.get("/metrics")).json()
        text = Metrics.of([(await api.get("/metrics", headers=PROMETHEUS)).text])
        return as_json(text) == numbers

    await eventually(same, what="agreement")


async def test_what_is_told_is_what_is_documented(stack: Stack) -> None:
    """Every metric of ours by its name, type and labels, no more and no fewer."""
    found = await metrics_of(stack)
    told = {
        (name, kind, frozenset(found.labels(name)))
        for name, kind in found.types.items()
        if name.startswith("orchestrator_")
    }
    # Nobody is parked now: what was not seen yet has no labels.
    unseen = {name for name, _, labels in told if not labels}
    documented = {
        (name, kind, frozenset() if name in unseen else labels) for name, kind, labels in table()
    }

    assert documented == told


async def test_the_clients_documented_metrics_are_told(
    api: httpx.AsyncClient, stack: Stack
) -> None:
    """By both processes, under the names that docs/metrics.md gives them."""
    await stack.temporal("workflow", "start", "--type", "TaskBatch", "--task-queue", "orchestrator")
    # A status of nobody's is what the engine refuses.
    await api.get("/status/nobody-s")
    documented = set(re.findall(r"^\| `(temporal_\w+)`", page(), re.MULTILINE))
    documented.add("temporal_workflow_completed_total")

    await reaches(stack, lambda now: documented <= set(now.types), f"all of {documented}")


async def test_promtool_finds_nothing(stack: Stack) -> None:
    """In what each process tells."""
    for text in await texts_of(stack):
        assert "" == promtool("check", "metrics", said=text)


async def test_no_label_holds_a_task_or_an_address(stack: Stack) -> None:
    """The number of series does not grow with the tasks."""
    found = await metrics_of(stack)
    values = {value for _, its in found.samples for _, value in its}
    assert set() == {each for each in values if "://" in each or re.search(r"[0-9a-f]{8}-", each)}


async def test_metrics_that_are_switched_off_are_off(stack: Stack) -> None:
    """No text is told by another API process, which says why; its JSON stays."""
    port = free_port()
    async with stack.joined("api", port), httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}/metrics"

        async def answered() -> httpx.Response | None:
            try:
                return await client.get(url, headers=PROMETHEUS)
            except httpx.TransportError:
                return None

        text = await eventually(answered, what="the API")
        numbers = await client.get(url)

    assert 404 == text.status_code
    assert "monitoring.enable_metrics" in text.json()["detail"]
    assert "total_tasks" in numbers.json()
