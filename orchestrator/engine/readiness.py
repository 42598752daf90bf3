"""Whether this process may be given work; whether it lives is another matter."""

import asyncio
import time
from datetime import timedelta

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator.engine.rpc import engine_call
from orchestrator.errors import OrchestratorError

FRESH_SECONDS = 1.0
"""So old may the engine's answer be; probes of many sorts then cost one call a second."""
DRAINING = "this process is stopping"


class Readiness:
    """Whether the engine answers us, and nobody has told this process to stop.

    The engine is asked for the namespace, which also finds a key that has been revoked. It is asked
    when somebody wants to know, not otherwise.
    """

    def __init__(self, client: Client, timeout: float, stopping: asyncio.Event) -> None:
        self._client = client
        self._timeout = timedelta(seconds=timeout)
        self._stopping = stopping
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._found: str | None = None

    async def problem(self) -> str | None:
        """Why no work is to be given to this process; None: it is ready."""
        if self._stopping.is_set():
            return DRAINING
        async with self._asking:
            if time.monotonic() - self._asked_at > FRESH_SECONDS:
                self._found = await self._ask()
                self._asked_at = time.monotonic()
        return DRAINING if self._stopping.is_set() else self._found

    async def _ask(self) -> str | None:
        request = DescribeNamespaceRequest(namespace=self._client.namespace)
        try:
            async with engine_call(self._timeout):
                await self._client.workflow_service.describe_namespace(
                    request, timeout=self._timeout
                )
        except OrchestratorError as error:
            return str(error)
        except RPCError as error:
            return f"The engine answers: {error.message}"
        return None
