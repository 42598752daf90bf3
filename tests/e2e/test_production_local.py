"""The production topology from programs of this machine: what docker-compose.yml names, running."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import aio_pika
import httpx
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from tests.support.agents import Agent
from tests.support.metrics import Metrics
from tests.support.production import ProductionLocal, production_local
from tests.support.rabbit import send
from tests.support.stack import Stack, agent_config, eventually, running
from tests.support.topology import ProductionStack, Shared

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
    pytest.mark.own_topology("it starts its own"),
]

PATTERN, AGENT = "check_content_quality", "content_quality_agent"
PAYLOAD = {"text": "The heart moves blood. Blood carries oxygen to every part of the body."}
AGAIN = {429, 502, 503, 504}
ENDS = {"completed", "failed", "cancelled"}
PATIENCE_SECONDS = 90.0
ROUND = 4
"""Tasks at once; the shipped limit takes 20, then 100 a minute."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def production() -> AsyncIterator[ProductionLocal]:
    """The topology of this module; a test may kill one of two."""
    async with production_local() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(production: ProductionLocal) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the proxy."""
    async with production.client() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def laid_over(
    production: ProductionLocal, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Stack, Agent]]:
    """APIs and workers of tests beside the topology's engine and broker, and their agent."""
    shared = Shared({name: production.addresses(name)[0] for name in ("temporal", "rabbitmq")})
    product = partial(ProductionStack, shared)
    async with (
        Agent() as agent,
        running(tmp_path_factory.mktemp("stack"), agent_config(agent.url), product) as stack,
    ):
        yield stack, agent


def task(pattern: str = PATTERN, **payload: Any) -> dict[str, Any]:
    """A task, for a sample agent if nothing else is said."""
    return {"pattern": pattern, "payload": PAYLOAD | payload}


async def hand_in(api: httpx.AsyncClient, path: str, body: Any) -> dict[str, Any]:
    """What is said of it once it is accepted; handed in again until then, as clients do."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}

    async def accepted() -> dict[str, Any] | None:
        try:
            answer = await api.post(path, json=body, headers=headers)
        except httpx.RemoteProtocolError:
            # So the proxy tells that an idle connection to a killed API was of no use.
            return None
        if answer.status_code in AGAIN:
            return None
        assert 202 == answer.status_code, answer.text
        return dict(answer.json())

    return dict(await eventually(accepted, PATIENCE_SECONDS, "acceptance"))


async def end_of(api: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """What a task's or a batch's status says once it has ended."""

    async def ended() -> dict[str, Any] | None:
        with suppress(httpx.RemoteProtocolError):
            answer = await api.get(path)
            if answer.status_code in AGAIN:
                return None
            return dict(answer.json()) if answer.json()["status"] in ENDS else None
        return None

    return dict(await eventually(ended, PATIENCE_SECONDS, f"end of {path}"))


async def carried_out(
    api: httpx.AsyncClient, pattern: str = PATTERN, **payload: Any
) -> dict[str, Any]:
    """The status of a task once it has ended."""
    accepted = await hand_in(api, "/orchestrate", task(pattern, **payload))
    return await end_of(api, f"/status/{accepted['task_id']}")


async def round_completes(api: httpx.AsyncClient) -> None:
    """Some tasks at once."""
    found = await asyncio.gather(*(carried_out(api) for _ in range(ROUND)))
    assert ["completed"] * ROUND == [each["status"] for each in found]


@asynccontextmanager
async def rabbitmq(production: ProductionLocal) -> AsyncIterator[AbstractChannel]:
    """A channel, as the user whom docker-compose.yml names."""
    [host] = production.addresses("rabbitmq")
    url = f"amqp://orchestrator:orchestrator@{host}:5672/"
    async with await aio_pika.connect(url, timeout=20) as connection:
        yield await connection.channel()


async def counted(production: ProductionLocal, service: str, metric: str) -> list[float]:
    """A metric of each process of a service, all its labels added up."""
    async with httpx.AsyncClient(timeout=20) as client:
        texts = [
            (await client.get(f"http://{address}:9090/metrics")).raise_for_status().text
            for address in production.addresses(service)
        ]
    return [Metrics.of([text]).value(metric, agent=AGENT) for text in texts]


async def test_a_task_completes(api: httpx.AsyncClient) -> None:
    """From the proxy to a sample agent and back."""
    status = await carried_out(api)

    assert ("completed", 1) == (status["status"], status["attempts"])
    assert status["result"]


async def test_a_batch_completes(api: httpx.AsyncClient) -> None:
    """Each of its items."""
    accepted = await hand_in(api, "/orchestrate/batch", [task() for _ in range(5)])
    status = await end_of(api, f"/batches/{accepted['batch_id']}")

    assert ("completed", 5) == (status["status"], status["completed"])


async def test_a_late_answer_arrives(api: httpx.AsyncClient) -> None:
    """By the URL that the agent was given, which leads through the proxy."""
    status = await carried_out(api, _later={"seconds": 0.2})

    assert ("completed", 1) == (status["status"], status["attempts"])


async def test_a_bad_request_is_told_what_is_wrong(api: httpx.AsyncClient) -> None:
    """The proxy passes a problem document on as it is."""
    answer = await api.post("/orchestrate", json={"pattern": "no_such_thing", "payload": {}})

    assert "application/problem+json" == answer.headers["Content-Type"]
    assert (400, 400) == (answer.status_code, answer.json()["status_code"])
    assert "no_such_thing" in answer.json()["detail"]


async def test_it_is_ready_and_tells_its_metrics(api: httpx.AsyncClient) -> None:
    """As probes and Prometheus ask."""
    ready = await api.get("/ready")
    metrics = await api.get("/metrics", headers={"Accept": "text/plain"})

    assert (200, 200) == (ready.status_code, metrics.status_code)
    assert 1 == Metrics.of([metrics.text]).value("orchestrator_engine_up")


async def test_a_message_becomes_a_task_and_an_event_tells_its_end(
    production: ProductionLocal, api: httpx.AsyncClient
) -> None:
    """Both by the broker that docker-compose.yml names."""
    key, body = str(uuid.uuid4()), json.dumps({"pattern": "run_local_ai", "payload": PAYLOAD})
    async with rabbitmq(production) as channel:
        queue = await channel.declare_queue(exclusive=True)
        # No other test has this agent work.
        await queue.bind("orchestrator.events", "task.completed.local_ai_agent")
        await send(channel, "orchestrator.tasks", body.encode(), message_id=key)

        async def heard() -> AbstractIncomingMessage | None:
            return await queue.get(no_ack=True, fail=False)

        event = json.loads(
            (await eventually(heard, PATIENCE_SECONDS, "event of the task's end")).body
        )
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    again = await api.post("/orchestrate", content=body, headers=headers)

    assert "true" == again.headers["Idempotency-Replayed"]
    assert event["subject"] == again.json()["task_id"]


async def test_both_of_two_work_and_either_may_be_killed(
    production: ProductionLocal, api: httpx.AsyncClient
) -> None:
    """Two APIs and two workers each take their share; one of each takes all."""

    async def both_work() -> bool:
        await round_completes(api)
        by_api = await counted(production, "api", "orchestrator_requests_total")
        by_worker = await counted(production, "worker", "orchestrator_agent_calls_total")
        return all(by_api) and all(by_worker)

    await eventually(both_work, PATIENCE_SECONDS, "work of both")
    for service in ("api", "worker"):
        await production.kill(service, production.addresses(service)[0])
    await round_completes(api)

    async def both_are_back() -> bool:
        with suppress(httpx.TransportError):
            return all([await ready(production, each) for each in ("api", "worker")])
        return False

    await eventually(both_are_back, PATIENCE_SECONDS, "what was killed, started again")
    assert "worker-1 has ended with -9, and is started again" in production.said()


async def ready(production: ProductionLocal, service: str) -> bool:
    """Whether each process of the service is."""
    async with httpx.AsyncClient(timeout=20) as client:
        urls = [f"http://{each}:9090/ready" for each in production.addresses(service)]
        return all([(await client.get(url)).is_success for url in urls])


async def test_end_to_end_tests_run_against_it(laid_over: tuple[Stack, Agent]) -> None:
    """As by `make test-production`: a test's configuration holds, and what is killed comes back."""
    stack, agent = laid_over
    async with stack.client() as api:
        before = await carried_out(api, "work")
        await stack.kill("worker")
        after = await carried_out(api, "work")

    assert {"completed"} == {before["status"], after["status"]}
    assert agent.calls_of(before["task_id"])
    assert agent.calls_of(after["task_id"])
    assert 2 == stack.restarts()


async def test_one_api_knows_what_another_has_just_been_told(
    laid_over: tuple[Stack, Agent],
) -> None:
    """The first adds an instance, the second finds it there."""
    stack, agent = laid_over
    codes = []
    for url in stack.apis:
        async with httpx.AsyncClient(base_url=url, timeout=70) as api:
            body = {"url": f"{agent.url}/second"}
            codes.append((await api.post("/agents/test_agent/instances", json=body)).status_code)

    assert [201, 200] == codes


async def test_a_second_one_says_what_it_meets(production: ProductionLocal) -> None:
    """It takes no other's servers for its own."""
    other = await production.command(
        *("--directory", str(production.directory / "second")), output=asyncio.subprocess.PIPE
    )
    said, _ = await other.communicate()

    assert 1 == other.returncode
    assert f"{production.network}." in said.decode()
    assert "is taken: this runs already" in said.decode()
