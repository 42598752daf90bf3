"""Operators in Temporal's own tools: the real command line, and the Web UI in a real browser."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from orchestrator.engine.embedded import DATABASE
from orchestrator.engine.visibility import needs_lightening
from tests.support.agents import Agent, Reply
from tests.support.browser import browser
from tests.support.stack import Stack, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

START = (
    *("workflow", "start", "--type", "OrchestrateTask", "--task-queue", "orchestrator"),
    *("--output", "json"),
)


async def test_the_command_line_starts_lists_and_queries_a_task(
    stack: Stack, agent: Agent, api: httpx.AsyncClient
) -> None:
    """Pattern and payload are enough; the API knows the task as well."""
    agent.script(Reply(body={"pages": 3}))
    task_id = f"by-hand-{uuid.uuid4()}"

    await stack.temporal(
        *START, "--workflow-id", task_id, "--input", '{"pattern": "work", "payload": {"n": 1}}'
    )
    result = json.loads(
        await stack.temporal("workflow", "result", "--workflow-id", task_id, "--output", "json")
    )

    async def listed() -> Any:
        query = f'OrchestratorAgent="test_agent" AND WorkflowId="{task_id}"'
        found = await stack.temporal("workflow", "list", "--query", query, "--output", "json")
        return json.loads(found)

    [found] = await eventually(listed)
    queried = json.loads(
        await stack.temporal(
            *("workflow", "query", "--workflow-id", task_id, "--type", "status"),
            *("--output", "json"),
        )
    )
    status = (await api.get(f"/status/{task_id}")).json()

    assert {"pages": 3} == result["result"]["result"]
    assert "WORKFLOW_EXECUTION_STATUS_COMPLETED" == found["status"]
    assert "completed" == queried["queryResult"][0]["status"]
    assert ("completed", "work", "test_agent") == (
        status["status"],
        status["pattern"],
        status["agent"],
    )
    assert {"n": 1} == agent.calls_of(task_id)[0].body


async def test_the_command_line_cancels_a_task(
    stack: Stack, agent: Agent, api: httpx.AsyncClient
) -> None:
    """`temporal workflow cancel` cuts the call off as the API's cancel does."""
    agent.script(Reply(hang=True))
    answer = await api.post("/orchestrate", json={"pattern": "work", "payload": {}})
    task_id = answer.json()["task_id"]

    async def called() -> Any:
        return agent.calls_of(task_id)

    [call] = await eventually(called)
    await stack.temporal("workflow", "cancel", "--workflow-id", task_id)
    await call.abandonment()
    status = (await api.get(f"/status/{task_id}", headers={"Prefer": "wait=20"})).json()

    assert "cancelled" == status["status"]


@pytest.mark.parametrize(
    ("arguments", "error_type", "words"),
    [
        (
            ("--input", '{"pattern": "wrok", "payload": {}}'),
            "UnknownPattern",
            "did you mean 'work'",
        ),
        (("--input", '{"pattern": "work"}'), "InvalidInput", "payload: Field required"),
        (("--input", '{"pattern": "work", "payload": {}, "x": 1}'), "InvalidInput", "x: Extra"),
        ((), "InvalidInput", "No input was given"),
    ],
)
async def test_a_wrong_start_by_hand_fails_at_once_and_says_why(
    stack: Stack, api: httpx.AsyncClient, arguments: tuple[str, ...], error_type: str, words: str
) -> None:
    """It never hangs in Running; the failure's type and message are for people."""
    task_id = f"wrong-{uuid.uuid4()}"

    await stack.temporal(*START, "--workflow-id", task_id, *arguments)
    status = (await api.get(f"/status/{task_id}", headers={"Prefer": "wait=20"})).json()

    assert ("failed", error_type) == (status["status"], status["error_type"])
    assert words in status["error"]


async def test_an_operator_terminates_a_task(
    stack: Stack, agent: Agent, api: httpx.AsyncClient
) -> None:
    """It is failed for the API's users, with the operator's reason."""
    agent.script(Reply(hang=True))
    answer = await api.post("/orchestrate", json={"pattern": "work", "payload": {}})
    task_id = answer.json()["task_id"]

    await stack.temporal("workflow", "terminate", "--workflow-id", task_id, "--reason", "stuck")
    status = (await api.get(f"/status/{task_id}")).json()

    assert ("failed", "Terminated") == (status["status"], status["error_type"])
    assert "stuck" in status["error"]


async def test_a_paused_call_says_so(stack: Stack, agent: Agent, api: httpx.AsyncClient) -> None:
    """An operator's pause of the activity is what the task is blocked by."""
    agent.script(Reply(status=503, headers={"Retry-After": "6"}), Reply())
    answer = await api.post("/orchestrate", json={"pattern": "work", "payload": {}})
    task_id = answer.json()["task_id"]
    await eventually(lambda: _seen(agent, task_id))

    described = ("workflow", "describe", "--workflow-id", task_id, "--output", "json")
    [pending] = json.loads(await stack.temporal(*described))["pendingActivities"]
    call = ("--workflow-id", task_id, "--activity-id", pending["activityId"])
    await stack.temporal("activity", "pause", *call)
    paused = (await api.get(f"/status/{task_id}")).json()
    await stack.temporal("activity", "unpause", *call)
    status = (await api.get(f"/status/{task_id}", headers={"Prefer": "wait=30"})).json()

    assert "paused" == paused["blocked_by"]
    assert "completed" == status["status"]


async def _seen(agent: Agent, task_id: str) -> bool:
    return bool(agent.calls_of(task_id))


async def test_the_web_ui_tells_a_tasks_story(
    stack: Stack, agent: Agent, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    """In a real browser: the list finds the task by agent, its page shows the summary."""
    agent.script(Reply())
    answer = await api.post(
        "/orchestrate", json={"pattern": "work", "payload": {}}, headers={"Prefer": "wait=20"}
    )
    task_id = answer.json()["task_id"]
    address = f"{stack.web_ui}/namespaces/default/workflows"
    query = f'?query=OrchestratorAgent%3D"test_agent"+AND+WorkflowId%3D"{task_id}"'

    def look() -> tuple[bool, bool]:
        with browser(tmp_path) as driver:
            # The page renders itself anew while it is looked at.
            wait = WebDriverWait(driver, 60, ignored_exceptions=[WebDriverException])
            driver.get(address + query)
            listed = wait.until(lambda d: task_id in d.page_source)
            driver.get(f"{address}/{task_id}")
            wait.until(lambda d: d.find_elements(By.PARTIAL_LINK_TEXT, "User Metadata"))[0].click()
            summarised = wait.until(lambda d: "work → test_agent" in framed_text(d))
            wait.until(lambda d: "Completed at attempt 1" in framed_text(d))
            return bool(listed), bool(summarised)

    assert (True, True) == await asyncio.to_thread(look)


def framed_text(driver: webdriver.Chrome) -> str:
    """The text inside the page's frames, in which the Web UI shows summaries and details."""
    driver.switch_to.default_content()
    texts = []
    for frame in driver.find_elements(By.TAG_NAME, "iframe"):
        driver.switch_to.frame(frame)
        texts.append(driver.find_element(By.TAG_NAME, "body").text)
        driver.switch_to.default_content()
    return "\n".join(texts)


@pytest.mark.own_topology("only the embedded engine is told of builds at the start")
async def test_the_engine_has_nothing_to_add_to_a_tasks_search_attributes(
    stack: Stack, api: httpx.AsyncClient
) -> None:
    """Each addition would be one more write to the engine's lists."""
    task = {"pattern": "work", "payload": {}}
    answer = await api.post("/orchestrate", json=task, headers={"Prefer": "wait=20"})
    described = ("workflow", "describe", "--workflow-id", answer.json()["task_id"])
    shown = ("workflow", "show", "--workflow-id", answer.json()["task_id"])

    info = json.loads(await stack.temporal(*described, "--output", "json"))
    history = json.loads(await stack.temporal(*shown, "--output", "json"))

    began = history["events"][0]["workflowExecutionStartedEventAttributes"]["searchAttributes"]
    ended = info["workflowExecutionInfo"]["searchAttributes"]
    assert set(began["indexedFields"]) == set(ended["indexedFields"])
    assert began["indexedFields"]["BuildIds"]["data"] == ended["indexedFields"]["BuildIds"]["data"]


@pytest.mark.own_topology("only the embedded engine's lists are changed")
async def test_the_engine_keeps_no_index_that_nobody_asks_for(stack: Stack) -> None:
    """Since its first start, and without a word to the user."""
    assert not needs_lightening(stack.data_dir / DATABASE)
    assert "lists_left_as_they_are" not in stack.output.read_text() + stack.errors.read_text()
