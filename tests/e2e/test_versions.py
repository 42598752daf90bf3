"""Worker Versioning: two versions of the product at once, and Temporal's own commands."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import Agent, Reply
from tests.support.stack import Stack, agent_config, eventually, free_port, running

pytestmark = pytest.mark.e2e

DEPLOYMENT = ("--deployment-name", "orchestrator")


def versioned(url: str) -> dict[str, Any]:
    """The product as version ``old``, whose tasks stay with it."""
    versioning = {"enabled": True, "build_id": "old", "tasks": "pinned"}
    return {**agent_config(url), "temporal": {"versioning": versioning}}


async def builds_of(stack: Stack, task_id: str) -> list[str]:
    """The version of each step of the task."""
    told = await stack.temporal("workflow", "show", "-w", task_id, "--output", "json")
    steps = (
        each["workflowTaskCompletedEventAttributes"]
        for each in json.loads(told)["events"]
        if each["eventType"] == "EVENT_TYPE_WORKFLOW_TASK_COMPLETED"
    )
    return [each["deploymentVersion"]["buildId"] for each in steps]


async def started_by_hand(stack: Stack, task_id: str) -> list[str]:
    """The versions of a task that no API starts."""
    await stack.temporal(
        *("workflow", "execute", "--type", "OrchestrateTask", "--task-queue", "orchestrator"),
        *("--workflow-id", task_id, "--input", '{"pattern": "work", "payload": {}}'),
    )
    return await builds_of(stack, task_id)


async def test_tasks_stay_with_their_version_and_new_ones_go_to_the_current(
    tmp_path: Path,
) -> None:
    """A version is current by itself where it is the first; operators choose every later one."""
    held = Agent(decide=lambda call: Reply(hang=bool((call.body or {}).get("hold"))))
    async with held as agent, running(tmp_path, versioned(agent.url)) as stack:
        # Beside the embedded engine the latest is current; elsewhere operators choose.
        stack.environment = {
            "ORCHESTRATOR_TEMPORAL__ADDRESS": stack.engine,
            "ORCHESTRATOR_TEMPORAL__VERSIONING__BUILD_ID": "new",
        }
        async with stack.client() as api, stack.joined("worker", free_port()):
            body = {"pattern": "work", "payload": {"hold": True}}
            task_id = (await api.post("/orchestrate", json=body)).json()["task_id"]

            async def known() -> bool:
                described = ("worker", "deployment", "describe", "--name", "orchestrator")
                return "new" in await stack.temporal(*described) and bool(agent.work())

            await eventually(known, 60, "both versions, and the call that is held")
            assert {"old"} == set(await started_by_hand(stack, "before"))
            await stack.temporal(
                *("worker", "deployment", "set-current-version", *DEPLOYMENT),
                *("--build-id", "new", "--yes", "--ignore-missing-task-queues"),
            )

            async def by_new() -> bool:
                number = next(numbers)
                return "new" in await started_by_hand(stack, f"after-{number}")

            numbers = count()
            await eventually(by_new, 60, "a task of the new version")
            agent.release()

            async def completed() -> bool:
                found = (await api.get(f"/status/{task_id}")).json()
                return bool(found["status"] == "completed")

            await eventually(completed, 60, "the end of the old version's task")
            assert {"old"} == set(await builds_of(stack, task_id))
