"""The engine of the tests: the time-skipping server, or the tuned development server."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from orchestrator.config import Embedded, Temporal
from orchestrator.engine import embedded, search_attributes
from orchestrator.engine.connect import connect
from orchestrator.engine.converter import data_converter
from tests.support.stack import free_port

STOP_SECONDS = 20


@asynccontextmanager
async def time_skipping() -> AsyncIterator[WorkflowEnvironment]:
    """The server that skips to the next timer whenever somebody waits for a result."""
    binary = Path(sys.executable).parent / "temporal-test-server"
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(binary), data_converter=data_converter
    ) as environment:
        # This server knows no listing of attributes, so what lacks cannot be asked for.
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=environment.client.namespace,
                search_attributes={
                    name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}")
                    for name, kind in search_attributes.TYPES.items()
                },
            )
        )
        yield environment


@contextmanager
def development_server(directory: Path) -> Iterator[Temporal]:
    """The server that `orchestrator run` starts, on free ports; yields how to reach it."""
    temporal = Temporal(
        embedded=Embedded(port=free_port(), ui_port=free_port()), connect_timeout=60
    )
    arguments = embedded.command(embedded.find_binary(), temporal, directory)
    with (directory / "engine.log").open("w") as log:
        environment = embedded.environment(os.environ)
        server = subprocess.Popen(arguments, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield temporal
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(STOP_SECONDS)
            server.kill()
            server.wait()


async def client_of(temporal: Temporal, identity: str = "tests") -> Client:
    """A client as our processes have it."""
    return await connect(temporal, identity)
