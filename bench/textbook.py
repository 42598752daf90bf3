"""The service that the engine's documentation teaches: one workflow, one activity, all defaults.

``python -m bench.textbook worker ENGINE`` runs the worker, ``... api ENGINE PORT`` the HTTP API:
``POST /tasks`` with ``{"url": ..., "payload": ...}`` starts a workflow whose one activity posts the
payload to the URL with httpx, under the default retry policy.
"""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import httpx
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

QUEUE = "textbook"
MAX_SECONDS = timedelta(seconds=30)


class Calls:
    """The activity, with one HTTP client for all calls."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @activity.defn
    async def call(self, url: str, payload: dict[str, Any]) -> Any:
        """Post the payload; whatever goes wrong is retried by the engine."""
        response = await self._client.post(url, json=payload)
        response.raise_for_status()
        return response.json()


@workflow.defn
class CallService:
    """One durable call."""

    @workflow.run
    async def run(self, url: str, payload: dict[str, Any]) -> Any:
        """Call and return the answer."""
        return await workflow.execute_activity_method(
            Calls.call, args=[url, payload], start_to_close_timeout=MAX_SECONDS
        )


class Task(BaseModel):
    """The body of a request."""

    url: str
    payload: dict[str, Any]


async def work(engine: str) -> None:
    """Run the worker until it is ended."""
    client = await Client.connect(engine)
    async with httpx.AsyncClient() as http:
        calls = Calls(http)
        await Worker(
            client, task_queue=QUEUE, workflows=[CallService], activities=[calls.call]
        ).run()


def application(engine: str) -> FastAPI:
    """The HTTP API."""
    clients: list[Client] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        clients.append(await Client.connect(engine))
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/tasks", status_code=202)
    async def submit(task: Task) -> dict[str, str]:
        handle = await clients[0].start_workflow(
            CallService.run,
            args=[task.url, task.payload],
            id=str(uuid.uuid4()),
            task_queue=QUEUE,
        )
        return {"id": handle.id}

    return app


def main() -> None:
    """The command."""
    match sys.argv[1:]:
        case ["worker", engine]:
            asyncio.run(work(engine))
        case ["api", engine, port]:
            uvicorn.run(application(engine), port=int(port), access_log=False, log_level="warning")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
