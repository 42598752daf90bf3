"""The status of a task that ended in this process: by one call to the engine."""

from typing import Any

import pytest
from temporalio.client import Client
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from orchestrator.config import Temporal
from orchestrator.engine.converter import data_converter
from orchestrator.engine.tasks import Tasks
from orchestrator.models import TaskState
from tests.support.agents import Agent, Reply
from tests.support.engine import client_of
from tests.workflows.agents_stage import RPC_SECONDS, Stage, serving
from tests.workflows.test_task_waiting import requests

LARGE = {"text": "x" * 5000}


async def asked(engine: Temporal, stage: Stage, task_id: str) -> tuple[Any, dict[str, int]]:
    """The status, read by what the process knows; and what the engine was asked for it."""
    buffer = MetricBuffer(10_000)
    counted = await Client.connect(
        engine.target,
        data_converter=data_converter,
        runtime=Runtime(telemetry=TelemetryConfig(metrics=buffer)),
    )
    status = await Tasks(counted, RPC_SECONDS, returned=stage.returned).status(task_id)
    return status, {
        name: number
        for name, number in requests(buffer.retrieve_updates()).items()
        if name.endswith(("Execution", "History"))
    }


async def done(stage: Stage) -> str:
    """A task that has ended, whose status nobody has asked for."""
    task_id = await stage.submit()
    await stage.client.get_workflow_handle(task_id).result()
    return task_id


@pytest.mark.parametrize("dispatch", ["queued", "inline"])
async def test_a_result_that_was_returned_here_is_not_read_again(
    engine: Temporal, dispatch: str
) -> None:
    """The status is the one that the engine's history gives."""
    client = await client_of(engine)
    async with serving(client, rule={"dispatch": dispatch}) as stage:
        task_id = await done(stage)
        status, calls = await asked(engine, stage, task_id)
        assert calls == {"DescribeWorkflowExecution": 1}
        assert status == await Tasks(client, RPC_SECONDS).status(task_id)
    assert (TaskState.COMPLETED, 1) == (status.status, status.attempts)
    assert status.result is not None


async def test_a_large_result_is_read_from_the_engine(engine: Temporal) -> None:
    """It is not kept."""
    client = await client_of(engine)
    async with serving(client, Agent(Reply(body=LARGE))) as stage:
        task_id = await done(stage)
        status, calls = await asked(engine, stage, task_id)
    assert calls == {"DescribeWorkflowExecution": 1, "GetWorkflowExecutionHistory": 1}
    assert status.result == LARGE
