"""One running product and one browser for all tests of the dashboard."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from selenium import webdriver

from tests.support.agents import Agent, Call, Reply
from tests.support.browser import browser
from tests.support.stack import Stack, agent_config, running
from tests.ui.page import Page

SIZE = (1280, 900)


def as_told(call: Call) -> Reply:
    """The payload says how: ``status`` for the first ``times`` attempts, ``hang``, ``answer``."""
    told = call.body if isinstance(call.body, dict) else {}
    attempt = int(call.headers.get("X-Attempt", "1"))
    if told.get("hang"):
        return Reply(hang=True)
    if attempt <= told.get("times", 0):
        return Reply(status=told["status"], body=told.get("answer", "no"))
    return Reply(body=told.get("answer", {"text": "done"}))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def agent() -> AsyncIterator[Agent]:
    """The agent of the shared product, which does as each payload says."""
    async with Agent(decide=as_told) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The shared product: the agent, another with two instances, and quick retries."""
    config = agent_config(agent.url)
    config["agents"]["twin_agent"] = {
        "instances": [{"url": f"{agent.url}/left"}, {"url": f"{agent.url}/right"}]
    }
    config["error_recovery"]["retry_delay"] = 0.05
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shared product's API."""
    async with stack.client() as client:
        yield client


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """The browser."""
    with browser(tmp_path_factory.mktemp("browser")) as started:
        started.set_window_size(*SIZE)
        yield started


@pytest.fixture
def page(driver: webdriver.Chrome, stack: Stack) -> Page:
    """The dashboard of the shared product."""
    driver.set_window_size(*SIZE)
    return Page(driver, stack.url)
