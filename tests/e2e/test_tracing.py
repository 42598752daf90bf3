"""One trace from the request to the agent, at a real receiver, by the standard variables."""

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent, Reply
from tests.support.otlp import Received, Receiver
from tests.support.stack import Stack, agent_config, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

WAIT = {"Prefer": "wait=30"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    """Where the product sends its spans."""
    async with Receiver() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    agent: Agent, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product, told by the standard variables alone, with a rule whose tasks are coalesced."""
    config = agent_config(agent.url)
    rules = config["routing_rules"]
    rules.append(rules[0] | {"pattern": "many", "dispatch": "coalesced"})
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    directory = tmp_path_factory.mktemp("stack")
    async with running(directory, config, environment=environment) as started:
        yield started


def caller(*, sampled: bool = True) -> tuple[str, str, dict[str, str]]:
    """A caller's trace and span, and the header that tells them."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-0{int(sampled)}"}


async def done(api: httpx.AsyncClient, headers: dict[str, str], **task: Any) -> dict[str, Any]:
    """The status of a task that is submitted and awaited."""
    body = {"pattern": "work", "payload": {}, **task}
    response = await api.post("/orchestrate", json=body, headers=headers | WAIT)
    assert response.status_code in {200, 202}, response.text
    return dict(response.json())


def by_kind(spans: list[Received], kind: str) -> list[Received]:
    """The spans of a kind, the children of the earlier parents first."""
    return [each for each in spans if each.kind == kind]


@pytest.mark.parametrize("pattern", ["work", "fast"])
async def test_a_task_is_one_trace_from_the_request_to_the_agent(
    api: httpx.AsyncClient, agent: Agent, receiver: Receiver, pattern: str
) -> None:
    """Request, workflow, each attempt's activity, each call; the agent gets the call's context."""
    agent.script(Reply(status=503), Reply(body={"ok": True}))
    trace_id, span_id, headers = caller()

    status = await done(api, headers, pattern=pattern)
    attempts = 2 if pattern == "work" else 3
    spans = await receiver.trace(trace_id, 2 + attempts + 2)

    [request] = by_kind(spans, "SERVER")
    assert ("POST /orchestrate", span_id) == (request.name, request.parent)
    expected = {"http.request.method": "POST", "http.route": "/orchestrate"}
    assert expected.items() <= request.attributes.items()
    assert 200 == request.attributes["http.response.status_code"]
    assert "orchestration-agent" == request.process["service.name"]
    [workflow] = [each for each in spans if each.name == "OrchestrateTask"]
    assert (request.span_id, False) == (workflow.parent, workflow.error)
    activities = [each for each in spans if each.name == "call_agent test_agent"]
    assert {workflow.span_id} == {each.parent for each in activities}
    calls = by_kind(spans, "CLIENT")
    assert [503, 200] == [each.attributes["http.response.status_code"] for each in calls]
    assert [True, False] == [each.error for each in calls]
    assert [1, 2] == [each.attributes["orchestrator.attempt"] for each in calls]
    assert {each.parent for each in calls} <= {each.span_id for each in activities}
    heard = [each.headers["traceparent"] for each in agent.calls_of(status["task_id"])]
    assert [f"00-{trace_id}-{each.span_id}-01" for each in calls] == heard
    found = (await api.get(f"/status/{status['task_id']}")).json()
    assert trace_id == found["trace_id"] == status["trace_id"]


async def test_a_caller_without_a_trace_gets_one(
    api: httpx.AsyncClient, agent: Agent, receiver: Receiver
) -> None:
    """It begins with the request, and GET /status names it."""
    agent.script(Reply())
    status = await done(api, {})
    spans = await receiver.trace(status["trace_id"], 4)
    assert "" == by_kind(spans, "SERVER")[0].parent
    assert {"SERVER", "INTERNAL", "CLIENT"} == {each.kind for each in spans}


async def test_a_failed_task_is_a_failed_span(
    api: httpx.AsyncClient, agent: Agent, receiver: Receiver
) -> None:
    """With the type of its error, and none of what the agent said."""
    agent.script(Reply(status=400, body={"secret": "s3cret"}))
    trace_id, _, headers = caller()
    await done(api, headers)
    spans = await receiver.trace(trace_id, 4)
    failed = {each.name: each.attributes["error.type"] for each in spans if each.error}
    expected = {"OrchestrateTask", "call_agent test_agent"}
    assert dict.fromkeys(expected, "AgentRejected") | {"POST": "400"} == failed
    assert "s3cret" not in repr(spans)


async def test_what_the_caller_does_not_sample_is_not_sent(
    api: httpx.AsyncClient, agent: Agent, receiver: Receiver
) -> None:
    """The agent is told that, too."""
    agent.script(Reply())
    trace_id, _, headers = caller(sampled=False)
    status = await done(api, headers)
    await done(api, caller()[2])
    [call] = agent.calls_of(status["task_id"])
    assert (trace_id, "00") == tuple(call.headers["traceparent"].split("-")[1::2])
    assert [] == receiver.of(trace_id)


async def test_coalesced_tasks_keep_their_own_traces(
    api: httpx.AsyncClient, agent: Agent, receiver: Receiver
) -> None:
    """Though one activity calls for all of them."""
    agent.script(Reply())
    trace_id, _, headers = caller()
    status = await done(api, headers, pattern="many")
    spans = await receiver.trace(trace_id, 2)
    [request], [call] = by_kind(spans, "SERVER"), by_kind(spans, "CLIENT")
    assert request.span_id == call.parent
    assert trace_id == status["trace_id"]
    [heard] = agent.calls_of(status["task_id"])
    assert f"00-{trace_id}-{call.span_id}-01" == heard.headers["traceparent"]


async def test_a_batch_is_one_trace(
    api: httpx.AsyncClient, agent: Agent, receiver: Receiver
) -> None:
    """Request, batch, chunk, and a call for each item."""
    agent.script(Reply())
    trace_id, _, headers = caller()
    tasks = [{"pattern": "work", "payload": {}}] * 3
    await api.post("/orchestrate/batch", json=tasks, headers=headers | WAIT)
    spans = await receiver.trace(trace_id, 6)
    [batch] = [each for each in spans if each.name == "TaskBatch"]
    [chunk] = [each for each in spans if each.name == "run_chunk test_agent"]
    assert by_kind(spans, "SERVER")[0].span_id == batch.parent
    assert batch.span_id == chunk.parent
    assert [chunk.span_id] * 3 == [each.parent for each in by_kind(spans, "CLIENT")]


async def test_a_task_that_an_operator_started_is_its_own_trace(
    stack: Stack, agent: Agent, receiver: Receiver
) -> None:
    """Its id is that of the task."""
    agent.script(Reply())
    await stack.temporal(
        *("workflow", "execute", "--type", "OrchestrateTask", "--task-queue", "orchestrator"),
        *("--workflow-id", "0af76519-16cd-43dd-8448-eb211c80319c"),
        *("--input", json.dumps({"pattern": "work", "payload": {}})),
    )
    spans = await receiver.trace("0af7651916cd43dd8448eb211c80319c", 3)
    [workflow] = [each for each in spans if each.name == "OrchestrateTask"]
    [activity] = [each for each in spans if each.name == "call_agent test_agent"]
    assert ("", workflow.span_id) == (workflow.parent, activity.parent)


async def test_log_lines_name_the_trace(api: httpx.AsyncClient, agent: Agent, stack: Stack) -> None:
    """Those of the request, the workflow and the attempts."""
    agent.script(Reply(status=503), Reply())
    trace_id, _, headers = caller()
    await done(api, headers)

    async def named() -> bool:
        lines = [line for line in stack.said().splitlines() if trace_id in line]
        return all(
            any(event in line for line in lines)
            for event in ("task_accepted", "attempt_failed", "task_completed")
        )

    await eventually(named, what="the lines")
