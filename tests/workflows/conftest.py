"""The two engines of this tier."""

from collections.abc import AsyncIterator, Iterator

import pytest
from temporalio.client import Client

from orchestrator.config import Temporal
from tests.support.engine import client_of, development_server, time_skipping


@pytest.fixture
async def skipping() -> AsyncIterator[Client]:
    """A client of an engine of its own that skips time while a result is awaited."""
    async with time_skipping() as environment:
        yield environment.client


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Temporal]:
    """The development server, one for each test process."""
    with development_server(tmp_path_factory.mktemp("engine")) as temporal:
        yield temporal


@pytest.fixture
async def client(engine: Temporal) -> Client:
    """A client of the development server."""
    return await client_of(engine)
