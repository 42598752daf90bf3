"""Events and replies by RabbitMQ: all arrive, whatever the broker goes through."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel

from tests.support.agents import Agent, Call, Reply
from tests.support.rabbit import RabbitServer, rabbit_server, send
from tests.support.stack import Stack, agent_config, eventually, running

pytestmark = pytest.mark.e2e

QUEUE, EXCHANGE, HEARD = "orchestrator.tasks", "orchestrator.events", "heard"


def decide(call: Call) -> Reply:
    """As the payload says: fail for good, fail so many times, hang, or answer."""
    want = call.body if isinstance(call.body, dict) else {}
    if want.get("reject"):
        return Reply(status=400, body={"error": "no"})
    if int(call.headers.get("X-Attempt", "1")) <= want.get("fail", 0):
        return Reply(status=500)
    return Reply(hang=True) if want.get("hang") else Reply(body={"answer": 42})


@dataclass
class Heard:
    """The events that have arrived, by task."""

    channel: AbstractChannel
    events: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    keys: dict[str, str] = field(default_factory=dict)

    async def listen(self) -> None:
        """Take in what has arrived so far."""
        queue = await self.channel.get_queue(HEARD)
        while message := await queue.get(fail=False):
            event = json.loads(message.body)
            assert (event["id"], "application/cloudevents+json") == (
                message.message_id,
                message.content_type,
            )
            self.events[event["subject"]].append(event)
            self.keys[event["id"]] = message.routing_key or ""
            await message.ack()

    async def of(self, subject: str, last: str) -> list[dict[str, Any]]:
        """All events about a subject, once one of that type has arrived."""

        async def there() -> bool:
            await self.listen()
            return any(each["type"] == last for each in self.events[subject])

        await eventually(there, 60, f"{last} of {subject}: {self.types(subject)}")
        return self.events[subject]

    async def course(self, subject: str, count: int) -> list[str]:
        """The types of so many by their time, once they have come: each process sends its own."""

        async def there() -> bool:
            await self.listen()
            return len(self.events[subject]) >= count

        await eventually(there, 60, f"{count} events of {subject}: {self.types(subject)}")
        return [
            each["type"] for each in sorted(self.events[subject], key=lambda each: each["time"])
        ]

    def types(self, subject: str) -> list[str]:
        """In the order of their arrival."""
        return [each["type"] for each in self.events[subject]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """The broker of the module; a test may kill it, and starts it again."""
    with rabbit_server(tmp_path_factory.mktemp("rabbit")) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """Does what each payload wants."""
    async with Agent(decide=decide) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    broker: RabbitServer, agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product, and a queue that hears every event."""
    async with await broker.connect() as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.TOPIC, durable=True)
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        queue = await channel.declare_queue(HEARD, durable=True, arguments=arguments)
        await queue.bind(exchange, "#")
    config = agent_config(agent.url)
    config["message_queue"] = {"type": "rabbitmq", "host": "127.0.0.1", "port": broker.port}
    config["error_recovery"]["max_retries"] = 1
    config["routing_rules"].append(
        {
            "pattern": "small",
            "target_agent": "test_agent",
            "endpoint": "/work",
            "dispatch": "coalesced",
        }
    )
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def heard(broker: RabbitServer, stack: Stack) -> AsyncIterator[Heard]:
    """What arrives."""
    async with await broker.connect() as connection:
        yield Heard(await connection.channel())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API."""
    async with stack.client() as client:
        yield client


async def submitted(api: httpx.AsyncClient, pattern: str = "work", **payload: Any) -> str:
    """A task's id."""
    answer = await api.post("/orchestrate", json={"pattern": pattern, "payload": payload})
    assert 202 == answer.status_code, answer.text
    return str(answer.json()["task_id"])


@pytest.mark.parametrize("pattern", ["work", "fast", "small"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_tasks_course_is_told(api: httpx.AsyncClient, heard: Heard, pattern: str) -> None:
    """Queued, started, retrying, started, completed; with topic, subject and constant ids."""
    task_id = await submitted(api, pattern, fail=1)
    events = await heard.of(task_id, "task.completed")
    kinds = ["queued", "started", "retrying", "started", "completed"]
    assert [f"task.{kind}" for kind in kinds] == await heard.course(task_id, 5)
    assert 5 == len({each["id"] for each in events})
    [last] = [each for each in events if each["type"] == "task.completed"]
    assert "task.completed.test_agent" == heard.keys[last["id"]]
    assert ("1.0", "/orchestration_agent") == (last["specversion"], last["source"])
    assert ("completed", "test_agent") == (last["data"]["status"], last["data"]["agent"])
    assert "result" not in last["data"]


@pytest.mark.asyncio(loop_scope="module")
async def test_other_ends_are_told(api: httpx.AsyncClient, heard: Heard) -> None:
    """Failed; failed with a dead letter; cancelled while the call was in flight."""
    rejected = await submitted(api, reject=True)
    exhausted = await submitted(api, fail=9)
    cancelled = await submitted(api, hang=True)
    await heard.of(cancelled, "task.started")
    await api.post(f"/tasks/{cancelled}/cancel")
    await heard.of(cancelled, "task.cancelled")
    await heard.of(rejected, "task.failed")
    [failed] = [
        each
        for each in await heard.of(exhausted, "task.dead_lettered")
        if each["type"] == "task.failed"
    ]
    assert "task.dead_lettered" not in heard.types(rejected)
    assert failed["data"]["error_type"] == "AgentFailed"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_items_of_a_batch_are_told_of(api: httpx.AsyncClient, heard: Heard) -> None:
    """Each as a task: those that end in a chunk, and one that goes on by itself."""
    tasks = [{"pattern": "work", "payload": {"fail": int(n == 2)}} for n in range(5)]
    answer = await api.post("/orchestrate/batch", json=tasks, headers={"Prefer": "wait=20"})
    batch_id = answer.json()["batch_id"]
    lines = (await api.get(f"/batches/{batch_id}/results")).text.splitlines()
    ids = [json.loads(line)["task_id"] for line in lines]
    for number, task_id in enumerate(ids):
        retried = ["retrying", "started"] if number == 2 else []
        kinds = [f"task.{kind}" for kind in ("queued", "started", *retried, "completed")]
        assert kinds == await heard.course(task_id, len(kinds))


@pytest.mark.asyncio(loop_scope="module")
async def test_what_operators_do_to_agents_is_told(api: httpx.AsyncClient, heard: Heard) -> None:
    """Drained and resumed: two changes of the agent's state."""
    for order in ("drain", "resume"):
        await api.post(f"/agents/test_agent/{order}", json={"reason": "told"})

    async def both() -> bool:
        await heard.listen()
        told = [each["data"]["what"] for each in heard.events["test_agent"]]
        return {"drained", "resumed"} <= set(told)

    await eventually(both)
    event = heard.events["test_agent"][-1]
    assert "agent.state_changed.test_agent" == heard.keys[event["id"]]


@pytest.mark.asyncio(loop_scope="module")
async def test_who_asked_by_a_message_gets_the_result(broker: RabbitServer, stack: Stack) -> None:
    """At its reply queue, with its correlation id; also when the task has failed."""
    async with await broker.connect() as connection:
        channel = await connection.channel()
        answers = await channel.declare_queue("answers", durable=True)
        for name, payload in (("good", {}), ("bad", {"reject": True})):
            body = json.dumps({"pattern": "work", "payload": payload}).encode()
            told = {"reply_to": "answers", "correlation_id": f"c-{name}", "message_id": name}
            await send(channel, QUEUE, body, **told)
        found = {}

        async def both() -> bool:
            if message := await answers.get(fail=False):
                await message.ack()
                found[message.correlation_id] = json.loads(message.body)
            return len(found) == 2

        await eventually(both)
        assert {"answer": 42} == found["c-good"]["result"]
        assert ("failed", "AgentRejected") == (
            found["c-bad"]["status"],
            found["c-bad"]["error_type"],
        )


@pytest.mark.asyncio(loop_scope="module")
async def test_an_outage_delays_events_and_loses_none(
    broker: RabbitServer, stack: Stack, api: httpx.AsyncClient
) -> None:
    """Tasks end while the broker is down and a worker is killed; later all is told, and replied."""
    async with await broker.connect() as connection:
        channel = await connection.channel()
        await channel.declare_queue("late", durable=True)
        body = json.dumps({"pattern": "work", "payload": {"fail": 1, "wait": True}}).encode()
        told = {"reply_to": "late", "correlation_id": "c-late", "message_id": "late"}
        await send(channel, QUEUE, body, **told)
    await asyncio.to_thread(broker.kill)
    ids = [await submitted(api, "small" if n % 2 else "work", number=n) for n in range(20)]
    for task_id in ids:
        status = (await api.get(f"/status/{task_id}", headers={"Prefer": "wait=30"})).json()
        assert "completed" == status["status"]
    await stack.kill("worker")
    await asyncio.to_thread(broker.start)
    async with await broker.connect() as connection:
        channel = await connection.channel()
        heard = Heard(channel)
        for task_id in ids:
            # Those of an outage come in any order.
            for kind in ("queued", "started", "completed"):
                await heard.of(task_id, f"task.{kind}")
        late = await channel.get_queue("late")

        async def answered() -> Any:
            return await late.get(fail=False)

        message = await eventually(answered, 60, "the late reply")
        await message.ack()
        assert ("c-late", "completed") == (
            message.correlation_id,
            json.loads(message.body)["status"],
        )
