"""The catalog and the agents that it names."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from examples.agents import CATALOG
from examples.agents.app import create_app

PATTERNS = sorted(CATALOG)
STEADY = [pattern for pattern in PATTERNS if pattern != "manage_infrastructure"]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a fresh application."""
    transport = httpx.ASGITransport(app=create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://agents") as client:
        yield client


def test_catalog_has_an_agent_for_each_of_18_patterns() -> None:
    """Each pattern leads to an agent of its own."""
    agents = {entry.agent for entry in CATALOG.values()}
    expected = (18, 18)
    assert expected == (len(CATALOG), len(agents))


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_agent_answers_its_example(client: httpx.AsyncClient, pattern: str) -> None:
    """The documented payload is answered with an object."""
    entry = CATALOG[pattern]
    response = await client.post(f"/{entry.agent}{entry.path}", json=entry.example)
    assert (200, dict) == (response.status_code, type(response.json()))


@pytest.mark.parametrize("pattern", STEADY)
async def test_agent_repeats_itself(client: httpx.AsyncClient, pattern: str) -> None:
    """The same payload gets the same answer, byte for byte."""
    entry = CATALOG[pattern]
    first = await client.post(f"/{entry.agent}{entry.path}", json=entry.example)
    second = await client.post(f"/{entry.agent}{entry.path}", json=entry.example)
    assert first.content == second.content


@pytest.mark.parametrize("pattern", STEADY)
async def test_agent_refuses_an_empty_payload(client: httpx.AsyncClient, pattern: str) -> None:
    """A payload that says nothing is refused with what is expected instead."""
    entry = CATALOG[pattern]
    response = await client.post(f"/{entry.agent}{entry.path}", json={})
    assert (422, entry.example) == (response.status_code, response.json()["example"])


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_agent_is_healthy(client: httpx.AsyncClient, pattern: str) -> None:
    """Each agent has its own health."""
    agent = CATALOG[pattern].agent
    response = await client.get(f"/{agent}/health")
    assert {"status": "healthy", "agent": agent} == response.json()


async def test_index_names_the_path_of_each_pattern(client: httpx.AsyncClient) -> None:
    """The root lists what the catalog holds."""
    agents = (await client.get("/")).json()["agents"]
    expected = {pattern: f"/{entry.agent}{entry.path}" for pattern, entry in CATALOG.items()}
    assert expected == {agent["pattern"]: agent["path"] for agent in agents}
