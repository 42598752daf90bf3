"""Everything about the API that is not the course of one task."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.aggregate_stage import called, submit, work
from tests.support.agents import Agent
from tests.support.stack import Stack, eventually

pytestmark = [pytest.mark.measured, pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

_FOLLOWED = ("status/{task", "batches/{batch", "aggregate/{aggregate")
PATHS = {
    "/session",
    *("/live", "/ready"),
    "/asyncapi",
    "/asyncapi.json",
    "/orchestrate",
    *("/orchestrate/batch", "/batches", "/batches/{batch_id}", "/batches/{batch_id}/results"),
    *("/batches/{batch_id}/cancel", "/batches/{batch_id}/redrive"),
    *("/aggregate", "/aggregate/{aggregate_id}"),
    *(f"/{each}_id}}/events" for each in _FOLLOWED),
    *("/aggregate/{aggregate_id}/redrive", "/aggregate/{aggregate_id}/cancel"),
    "/status/{task_id}",
    *("/tasks", "/tasks/{task_id}/cancel", "/tasks/{task_id}/priority"),
    *("/tasks/cancel", "/tasks/cancellations/{order_id}"),
    "/tasks/cancellations/{order_id}/stop",
    *(
        "/agents",
        "/fleet/events",
        "/agents/{name}",
        "/agents/{name}/limit",
        "/agents/{name}/instances",
    ),
    *(
        f"/agents/{{name}}/{order}"
        for order in ("drain", "resume", "trip", "reset", "disable_breaker")
    ),
    *("/callbacks", "/callbacks/{callback_id}"),
    *("/callbacks/{callback_id}/redeliver", "/callbacks/{callback_id}/discard"),
    *("/dead-letters", "/dead-letters/redrive", "/dead-letters/discard"),
    *("/dead-letters/redrives/{redrive_id}", "/dead-letters/redrives/{redrive_id}/cancel"),
    "/dead-letters/{task_id}",
    *("/dead-letters/{task_id}/redrive", "/dead-letters/{task_id}/discard"),
    "/completions/{token}",
    *("/health", "/metrics", "/traffic", "/", "/asyncapi", "/asyncapi.json"),
}


async def test_health_has_the_documented_fields(api: httpx.AsyncClient) -> None:
    """All numbers of the whole, and the version."""

    async def healthy() -> Any:
        found = (await api.get("/health")).json()
        return found if found["agents_healthy"] == 1 else None

    health = await eventually(healthy)

    expected = {
        "status",
        "timestamp",
        "version",
        "config_version",
        "agents_healthy",
        "agents_total",
        "active_tasks",
        "queue_size",
        "queues",
    }
    assert expected == set(health)
    assert ("healthy", 1) == (health["status"], health["agents_total"])


async def test_metrics_are_json_unless_prometheus_asks(
    api: httpx.AsyncClient, stack: Stack, agent: Agent
) -> None:
    """JSON by default, text by the Accept header and on the port of its own; they agree."""
    done = await api.post(
        "/orchestrate", json={"pattern": "fast", "payload": {}}, headers={"Prefer": "wait=20"}
    )
    assert "completed" == done.json()["status"]

    async def counted() -> Any:
        found = (await api.get("/metrics")).json()
        return found if found["completed_tasks"] >= 1 and not found["active_tasks"] else None

    numbers = await eventually(counted)
    text = await api.get("/metrics", headers={"Accept": "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"})
    async with httpx.AsyncClient() as client:
        answers = [(await client.get(url)).text for url in stack.metrics_urls]
    apis, workers = answers[: len(stack.apis)], answers[len(stack.apis) :]

    assert {f"priority_{level}" for level in range(1, 6)} == set(numbers["queue_sizes"])
    assert {"test_agent"} == set(numbers["agents_status"])
    assert numbers["total_tasks"] >= numbers["completed_tasks"]
    requests = 0.0
    for answer in (text.text, *apis):
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(answer)
            for sample in family.samples
        }
        requests += samples.get("orchestrator_requests_total", 0)
        assert samples["orchestrator_agent_health"] in {0.0, 1.0}
    assert requests >= 1
    assert "orchestrator_agent_calls_total" in "".join(workers)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ('{"pattern": "wrok", "payload": {}}', 400, "Unknown pattern 'wrok'; did you mean 'work'?"),
        ('{"capabilities": ["magic"], "payload": {}}', 400, "No agent has all of: magic"),
        ('{"payload": {}}', 422, "name a pattern"),
        ('{"pattern": "work"}', 422, "payload"),
        ('{"pattern": "work", "payload": {}, "priority": 0}', 422, "priority"),
        ('{"pattern": "work", "payload": {}, "priority": "3"}', 422, "priority"),
        ('{"pattern": "work", "payload": {}, "timeout": -1}', 422, "timeout"),
        ('{"pattern": "work", "payload": {}, "prioritty": 3}', 422, "prioritty"),
        ('{"pattern": "work", "payload": {}, "callback_url": "nonsense"}', 422, "callback_url"),
        ('{"pattern": "work", "payload": [1]}', 422, "payload"),
        ("[]", 422, "send a JSON object"),
        ('{"pattern": "' + "😀" * 200 + '", "payload": {}}', 422, "pattern is too long"),
        ("", 422, "not JSON"),
        ('{"pattern": "work", "payload": {"n": NaN}}', 422, "not JSON"),
        (
            '{"pattern": "work", "payload": ' + '{"a":' * 5000 + "1" + "}" * 5000 + "}",
            422,
            "not JSON",
        ),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    api: httpx.AsyncClient, body: str, status: int, words: str
) -> None:
    """A problem document with the documented fields, the field's name and no traceback."""
    response = await api.post(
        "/orchestrate", content=body, headers={"Content-Type": "application/json"}
    )

    problem = response.json()
    assert "application/problem+json" == response.headers["content-type"]
    assert (status, status, status) == (
        response.status_code,
        problem["status_code"],
        problem["status"],
    )
    assert words in problem["detail"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/status/never-heard-of-it", 404),
        ("GET", "/status/%00", 404),
        ("POST", "/tasks/%00/cancel", 404),
        ("GET", "/batches/%00", 404),
        ("GET", "/aggregate/%00", 404),
        ("GET", "/dead-letters/%00", 404),
        ("GET", "/dead-letters/redrives/%00", 404),
        ("POST", "/tasks/never-heard-of-it/cancel", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/orchestrate", 405),
        ("GET", "/tasks?cursor=nonsense", 422),
        ("GET", "/tasks?cursor=bm9uc2Vuc2U=", 422),
        ("GET", "/tasks?limit=0", 422),
        ("GET", "/tasks?status=lost", 422),
        ("GET", "/tasks?since=yesterday", 422),
        ("GET", "/tasks?since=0001-01-01T00:00:00%2B14:00", 422),
        ("GET", "/tasks?since=9999-12-31T23:59:59-12:00", 422),
        ("GET", "/tasks?agent=a%00b", 422),
    ],
)
async def test_other_errors_are_problems_too(
    api: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    """Every error is a problem document."""
    response = await api.request(method, path)

    assert status == response.status_code
    assert "application/problem+json" == response.headers["content-type"]
    assert status == response.json()["status_code"]


@pytest.mark.own_topology("only an API that asks for no key on a loopback address looks at names")
async def test_a_site_whose_name_leads_here_is_refused(api: httpx.AsyncClient) -> None:
    """Its pages are the API's own to a browser."""
    headers = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
    response = await api.post("/orchestrate", json={"pattern": "work"}, headers=headers)

    assert 403 == response.status_code
    assert "evil.example" in response.json()["detail"]


async def test_only_json_is_taken(api: httpx.AsyncClient) -> None:
    """A form is refused with 415 and told what to send."""
    response = await api.post("/orchestrate", data={"pattern": "work"})

    assert 415 == response.status_code
    assert "application/json" in response.json()["detail"]


async def test_the_openapi_document_describes_what_the_api_does(api: httpx.AsyncClient) -> None:
    """It has every route, worked examples that fit their schemas, and a page to read it on."""
    document = (await api.get("/openapi.json")).json()
    page = await api.get("/docs")

    assert PATHS == set(document["paths"])
    assert 200 == page.status_code
    checked = 0
    for schema, value in _examples(document):
        jsonschema.validate(value, {**schema, "components": document["components"]})
        checked += 1
    assert checked >= 10


def _examples(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    for path in document["paths"].values():
        for operation in path.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                for content in body.get("content", {}).values():
                    schema = json.loads(json.dumps(content.get("schema", {})))
                    for example in content.get("examples", {}).values():
                        yield schema, example["value"]
                    if "example" in content:
                        yield schema, content["example"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "name task_ids, give tasks, or both"),
        ({"task_ids": "one"}, "task_ids"),
        ({"task_ids": [""]}, "task_ids.0"),
        ({"task_ids": ["a"], "join": "most"}, "join"),
        ({"task_ids": ["a"], "join": {"at_least": 0}}, "at_least"),
        ({"task_ids": ["a"], "deadline": 0}, "deadline"),
        ({"task_ids": ["a"], "merge": "zip"}, "merge"),
        ({"task_ids": ["a"], "on_mett": "leave"}, "on_mett"),
        ({"tasks": {"pattern": "work", "payload": {}}}, "tasks"),
    ],
)
async def test_a_wrong_aggregate_is_told_what_is_wrong(
    api: httpx.AsyncClient, body: dict[str, Any], words: str
) -> None:
    """With the field; nothing is started."""
    answer = await api.post("/aggregate", json=body)

    assert (422, 422) == (answer.status_code, answer.json()["status_code"])
    assert words in answer.json()["detail"]


async def test_every_bad_task_of_an_aggregate_is_named(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """As POST /orchestrate/batch does: index, field, message."""
    mark = str(uuid.uuid4())
    tasks = [work(mark=mark), {"pattern": "wrok", "payload": {}}, {"pattern": "work"}]

    answer = await api.post("/aggregate", json={"tasks": tasks})

    errors = answer.json()["errors"]
    assert 422 == answer.status_code
    assert [1, 2] == [each["index"] for each in errors]
    assert "Unknown pattern 'wrok'; did you mean 'work'?" in errors[0]["message"]
    assert "payload" == errors[1]["field"]
    assert [] == called(agent, mark)


async def test_too_many_bytes_of_tasks_belong_into_a_batch(api: httpx.AsyncClient) -> None:
    """The refusal says so."""
    tasks = [work(value="x" * 800_000) for _ in range(2)]

    answer = await api.post("/aggregate", json={"tasks": tasks})

    assert 413 == answer.status_code
    assert "POST /orchestrate/batch" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "order"), [("GET", ""), ("POST", "/redrive"), ("POST", "/cancel")]
)
async def test_an_unknown_aggregate_is_not_found(
    api: httpx.AsyncClient, method: str, order: str
) -> None:
    """Neither one that never was, nor a workflow of another kind."""
    [task_id] = await submit(api, work())

    answers = [
        await api.request(method, f"/aggregate/{aggregate_id}{order}")
        for aggregate_id in (str(uuid.uuid4()), task_id, "agent-fleet")
    ]

    assert [404, 404, 404] == [answer.status_code for answer in answers]
    assert f"Aggregate '{task_id}' is not known" == answers[1].json()["detail"]
