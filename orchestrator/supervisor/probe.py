"""Whether tasks go through: the API's own word, and one real task through engine and worker."""

import asyncio
import contextlib
import os
import time
import uuid
from datetime import timedelta
from typing import Any

import aiohttp
from aiohttp import web
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator.config import Settings
from orchestrator.models import Dispatch, Plan, Task
from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE, retry_plan
from orchestrator.values import MAX_PRIORITY

POLL_SECONDS = 0.05
PROBE_SECONDS = 30.0


async def answers(url: str) -> None:
    """Return when a GET of the URL answers 200."""
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                async with session.get(url) as response:
                    if response.status == web.HTTPOk.status_code:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(POLL_SECONDS)


async def api_is_healthy(url: str) -> None:
    """Return when the API says that the engine answers and every queue has a worker."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                async with session.get(f"{url}/health") as response:
                    health: dict[str, Any] = await response.json()
                    if health["status"] == "healthy":
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(POLL_SECONDS)


async def probe_task(client: Client, settings: Settings) -> float:
    """Send one task to an agent that we serve here, then remove its trace; the seconds it took."""
    agent = web.Application()
    agent.router.add_post("/", _answer)
    runner = web.AppRunner(agent, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = runner.addresses[0]
        plan = Plan(
            agent="probe",
            endpoint=f"http://{address[0]}:{address[1]}/",
            task_queue=WORKFLOW_QUEUE,
            dispatch=Dispatch.INLINE,
            attempt_timeout=PROBE_SECONDS,
            deadline=PROBE_SECONDS,
            priority=MAX_PRIORITY,
            retry=retry_plan(settings.error_recovery),
            chosen_by="start-up",
        )
        task_id = f"probe-{os.getpid()}-{uuid.uuid4()}"
        started = time.perf_counter()
        await client.execute_workflow(
            WORKFLOW_TYPE,
            Task(pattern="probe", payload={}, plan=plan),
            id=task_id,
            task_queue=WORKFLOW_QUEUE,
            static_summary="start-up probe",
        )
        seconds = time.perf_counter() - started
    finally:
        await runner.cleanup()
    with contextlib.suppress(RPCError):
        # An engine that does not let us delete keeps one finished task more.
        await _forget(client, task_id, timedelta(seconds=settings.temporal.rpc_timeout))
    return seconds


async def _forget(client: Client, task_id: str, timeout: timedelta) -> None:
    await _visible(client, task_id)
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=task_id),
        ),
        timeout=timeout,
    )


async def _visible(client: Client, task_id: str) -> None:
    """Return when lists show the task: deleted before, it would come back to them."""
    found = f"WorkflowId = '{task_id}' AND ExecutionStatus = 'Completed'"
    while not (await client.count_workflows(found)).count:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(POLL_SECONDS)


async def _answer(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})
