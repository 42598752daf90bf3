"""A configuration that changes under running processes: taken over, or refused, without a stop."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent, Reply
from tests.support.stack import BIN, Stack, agent_config, eventually, free_port, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """Holds the calls that ask for it until it is to release them; answers all others at once."""
    held = Agent(decide=lambda call: Reply(hang=bool((call.body or {}).get("hold"))))
    async with held as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A product of this module's own: its file is changed."""
    async with running(tmp_path_factory.mktemp("reload"), agent_config(agent.url)) as started:
        yield started


def with_agent(stack: Stack, name: str, url: str) -> dict[str, Any]:
    """The stack's first configuration with one more agent, called by a pattern of its name."""
    config: dict[str, Any] = json.loads(json.dumps(stack.config))
    config["agents"][name] = {"instances": [{"url": url}]}
    config["routing_rules"].append(
        {"pattern": name, "target_agent": name, "endpoint": "/work", "timeout": 60}
    )
    return config


def said(stack: Stack, event: str) -> list[dict[str, Any]]:
    """The lines of that event."""
    lines = (line for line in stack.said().splitlines() if line.startswith("{"))
    return [found for line in lines if (found := json.loads(line))["event"] == event]


def replace(stack: Stack, text: str) -> None:
    """Put another file in the place of the configuration's, at once."""
    other = stack.config_path.with_suffix(".new")
    other.write_text(text)
    other.replace(stack.config_path)


async def reload(stack: Stack, config: dict[str, Any]) -> None:
    """Change the file, ask for it, and wait until API and worker have taken it over."""
    before = len(said(stack, "config_reloaded"))
    replace(stack, json.dumps(config))
    stack.hang_up()
    await heard(stack, "config_reloaded", before + stack.parts)


async def heard(stack: Stack, event: str, times: int) -> None:
    """Wait until the event was logged so many times."""

    async def so_often() -> bool:
        return len(said(stack, event)) >= times

    await eventually(so_often, 60, event)


async def run(api: httpx.AsyncClient, pattern: str, **payload: Any) -> httpx.Response:
    """Submit a task and wait for its end."""
    body = {"pattern": pattern, "payload": payload}
    return await api.post("/orchestrate", json=body, headers={"Prefer": "wait=60"})


async def test_agents_come_and_go(stack: Stack, api: httpx.AsyncClient, agent: Agent) -> None:
    """Tasks of a new one are carried out; a call to one that is gone ends as it would have."""
    await reload(stack, with_agent(stack, "guest", agent.url))
    calls = len(agent.work())
    going = asyncio.create_task(run(api, "guest", hold=True))

    async def called() -> bool:
        return len(agent.work()) > calls

    await eventually(called)
    await reload(stack, with_agent(stack, "newcomer", agent.url))
    unknown = await run(api, "guest")
    completed = (await run(api, "newcomer")).json()
    agent.release()
    kept = (await going).json()

    assert (400, "completed") == (unknown.status_code, completed["status"])
    assert ("completed", 1) == (kept["status"], kept["attempts"])
    await heard(stack, "agent_worker_retires", 1)


async def test_an_api_that_drains_takes_requests_and_says_no_to_probes(stack: Stack) -> None:
    """So that whatever spreads them can notice before it is gone; it keeps no connection."""
    port = free_port()
    stack.environment = {"ORCHESTRATOR_AGENT__DRAIN": "120"}
    async with (
        stack.joined("api", port) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=70) as api,
    ):

        async def state() -> str:
            with contextlib.suppress(httpx.TransportError):
                return str((await api.get("/health")).json()["status"])
            return ""

        async def ready() -> bool:
            return await state() in {"healthy", "degraded"}

        async def draining() -> bool:
            return await state() == "stopping"

        await eventually(ready, 60, "the API")
        process.terminate()
        await eventually(draining, 60, "the drain")
        body = {"pattern": "work", "payload": {}}
        accepted = await api.post("/orchestrate", json=body)
        assert (202, "close") == (accepted.status_code, accepted.headers.get("Connection"))
        process.kill()  # all was seen that the rest of the drain could show
    stack.environment = {}


async def test_a_changed_file_is_taken_over_without_a_signal(stack: Stack) -> None:
    """By the API and the worker; both say what has changed and by which version they go now."""
    before = len(said(stack, "config_reloaded"))
    config = {**stack.config, "limits": {"max_batch_bytes": 4096 + before}}
    replace(stack, json.dumps(config))
    await heard(stack, "config_reloaded", before + stack.parts)
    lines = said(stack, "config_reloaded")[before:]
    assert all("limits.max_batch_bytes" in each["changed"] for each in lines)
    assert 1 == len({each["version"] for each in lines})
    assert {"api", "worker"} == {each["process"] for each in lines}


async def test_a_wrong_file_is_refused(stack: Stack, api: httpx.AsyncClient) -> None:
    """Both say what is wrong and where, and go on by the one before; doctor tells of it."""
    before = (await api.get("/health")).json()["config_version"]
    told = len(said(stack, "config_refused"))
    replace(stack, '{"agents": {"test_agent": {"instances": [{"url": "nowhere"}]}}}')
    await heard(stack, "config_refused", told + stack.parts)
    problems = {each["problem"] for each in said(stack, "config_refused")[told:]}
    assert 1 == len(problems)
    assert "config.yaml:1: agents.test_agent.instances[0].url: found" in problems.pop()
    assert before == (await api.get("/health")).json()["config_version"]
    assert "completed" == (await run(api, "work")).json()["status"]


async def test_doctor_tells_a_file_that_is_not_taken_over(stack: Stack) -> None:
    """Here by another environment than that of the API."""
    count = len(said(stack, "config_reloaded"))
    await reload(stack, {**stack.config, "limits": {"max_payload_bytes": 4096 + count}})
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "orchestrator"), "doctor", "--json"),
        env={**stack.variables(), "ORCHESTRATOR_LIMITS__MAX_BATCH_BYTES": "5000"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    [check] = [each for each in json.loads(output)["checks"] if "running" in each["name"]]
    assert "warn" == check["state"]
    assert "config_refused" in check["advice"]
