"""One running product for the tests of a module, with an agent that does as it is told."""

from collections.abc import AsyncIterator, Iterator
from functools import partial

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent
from tests.support.stack import Stack, agent_config, running, usual
from tests.support.topology import ProductionStack, shared


@pytest.fixture(scope="session", autouse=True)
def _topology(request: pytest.FixtureRequest) -> Iterator[None]:
    """What `running` starts, as ``--topology`` says."""
    if request.config.getoption("topology") == "run":
        yield
        return
    with shared() as infrastructure:
        usual[0] = partial(ProductionStack, infrastructure)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """The agent of the shared product; tests script it by the payload's ``replies``."""
    async with Agent() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The shared product."""
    async with running(tmp_path_factory.mktemp("stack"), agent_config(agent.url)) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shared product's API."""
    async with stack.client() as client:
        yield client
