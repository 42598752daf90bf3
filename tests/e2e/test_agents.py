"""Operators of agents: by the API, by `orchestrator agents`, and by Temporal's own command line."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from tests.support.agents import Agent
from tests.support.stack import BIN, Stack, eventually

pytestmark = [pytest.mark.measured, pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

NAME = "test_agent"
SEEN_SECONDS = 10.0
UPDATE = ("workflow", "update", "execute", "--workflow-id", "agent-fleet", "--output", "json")


async def look(api: httpx.AsyncClient) -> dict[str, Any]:
    """The agent as the API shows it."""
    response = await api.get(f"/agents/{NAME}")
    assert 200 == response.status_code, response.text
    return dict(response.json())


async def order(stack: Stack, api: httpx.AsyncClient, what: str, **fields: Any) -> dict[str, Any]:
    """Give an order that must be obeyed, and return once all know it; the agent after it."""
    response = await api.post(f"/agents/{NAME}/{what}", json=fields)
    assert response.status_code in {200, 201}, response.text
    await stack.agreed()
    return dict(response.json())


async def run(api: httpx.AsyncClient) -> dict[str, Any]:
    """Submit a task and wait for its end."""
    response = await api.post(
        "/orchestrate", json={"pattern": "work", "payload": {}}, headers={"Prefer": "wait=20"}
    )
    return {"code": response.status_code, **response.json()}


async def command(stack: Stack, *arguments: str) -> tuple[int, str, str]:
    """What `orchestrator agents` answers: its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "orchestrator"), "agents", *arguments),
        env=stack.variables(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    await stack.agreed()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_agents_are_listed_as_they_are(api: httpx.AsyncClient, agent: Agent) -> None:
    """With instances, health, breakers, limits and queues, and how fresh that is."""

    async def healthy() -> Any:
        answer = (await api.get("/agents")).json()
        return answer if answer["agents"][0]["healthy"] else None

    answer = await eventually(healthy, what="a healthy agent")
    [found] = answer["agents"]
    assert (NAME, ["testing"], "closed") == (
        found["name"],
        found["capabilities"],
        found["breaker"],
    )
    [instance] = found["instances"]
    assert (agent.url, 1, False, False, "healthy", "closed") == (
        instance["url"],
        instance["weight"],
        instance["added"],
        instance["draining"],
        instance["health"]["state"],
        instance["breaker"]["state"],
    )
    assert (100, []) == (found["limits"]["max_connections"], found["limits"]["set_at_run_time"])
    assert {"depth": {}, "has_worker": True} == found["queue"]
    assert answer["fleet"]["reachable"]
    assert answer["fleet"]["version"] > 0


async def test_a_drained_agent_gets_no_calls(
    stack: Stack, api: httpx.AsyncClient, agent: Agent
) -> None:
    """From the moment that the order is answered; after resume it does."""
    drained = await order(stack, api, "drain", reason="new disk")
    refused = await run(api)
    calls = len(agent.work())
    resumed = await order(stack, api, "resume", instance=agent.url)
    done = await run(api)

    assert (True, False) == (
        drained["instances"][0]["draining"],
        resumed["instances"][0]["draining"],
    )
    assert (503, f"Agent '{NAME}' is currently unavailable") == (refused["code"], refused["detail"])
    assert (200, "completed", calls + 1) == (done["code"], done["status"], len(agent.work()))
    assert [("resumed", ""), ("drained", "new disk")] == [
        (each["what"], each["reason"]) for each in resumed["events"][:2]
    ]


async def test_an_instance_is_added_and_removed_at_run_time(
    stack: Stack, api: httpx.AsyncClient, agent: Agent
) -> None:
    """It is called while it is there; DELETE takes its URL in the query and in the body."""
    async with Agent() as second:
        path = f"/agents/{NAME}/instances"
        added = await api.post(path, json={"url": f"{second.url}/", "weight": 2})
        again = await api.post(path, json={"url": second.url})
        await order(stack, api, "drain", instance=agent.url)

        async def called() -> bool:
            return "completed" == (await run(api))["status"] and bool(second.work())

        await eventually(called, what="a call of the new instance")
        await order(stack, api, "resume", instance=agent.url)
        removed = await api.delete(path, params={"url": second.url})
        await api.post(path, json={"url": second.url})
        body = await api.request("DELETE", path, json={"url": second.url, "reason": "enough"})
    last = await api.delete(path, params={"url": agent.url})

    assert (201, 200, 200, 200) == (
        added.status_code,
        again.status_code,
        removed.status_code,
        body.status_code,
    )
    assert [2, 2] == [each.json()["instances"][1]["weight"] for each in (added, again)]
    assert [[agent.url]] * 2 == [
        [each["url"] for each in response.json()["instances"]] for response in (removed, body)
    ]
    assert (409, True) == (last.status_code, "last instance" in last.json()["detail"])


async def test_breakers_are_held_by_operators(stack: Stack, api: httpx.AsyncClient) -> None:
    """Tripped, disabled, reset; /metrics says so in its own words."""
    words = []
    for name in ("trip", "disable_breaker", "reset"):
        after = await order(stack, api, name)
        metrics = (await api.get("/metrics")).json()
        text = (await api.get("/metrics", headers={"Accept": "text/plain"})).text
        [line] = [
            each
            for each in text.splitlines()
            if each.startswith("orchestrator_circuit_breaker_state{")
        ]
        words.append((after["breaker"], metrics["agents_status"][NAME], line.split()[-1]))
    assert [
        ("forced_open", "open", "2.0"),
        ("disabled", "closed", "0.0"),
        ("closed", "closed", "0.0"),
    ] == words


async def test_limits_are_set_at_run_time(stack: Stack, api: httpx.AsyncClient) -> None:
    """What holds then, and what an operator has set; clear takes it back."""
    limited = await order(stack, api, "limit", rate=1, burst=1, max_connections=7)
    first, second = await run(api), await run(api)
    cleared = await order(stack, api, "limit", clear=True)
    third = await run(api)

    assert {
        "rate": 1.0,
        "burst": 1,
        "mode": "reject",
        "max_connections": 7,
        "set_at_run_time": ["rate", "burst", "max_connections"],
    } == limited["limits"]
    assert (200, 429, 200) == (first["code"], second["code"], third["code"])
    assert [] == cleared["limits"]["set_at_run_time"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/agents/tset_agent", None, 404, "did you mean 'test_agent'?"),
        ("POST", "/agents/tset_agent/drain", None, 404, "did you mean 'test_agent'?"),
        (
            "POST",
            f"/agents/{NAME}/drain",
            {"instance": "http://x"},
            404,
            "has no instance http://x",
        ),
        ("POST", f"/agents/{NAME}/drain", {"instnace": "x"}, 422, "instnace"),
        ("POST", f"/agents/{NAME}/drain", [], 422, "send a JSON object"),
        ("POST", f"/agents/{NAME}/limit", {}, 422, "Name what to set"),
        ("POST", f"/agents/{NAME}/limit", {"rate": 0}, 422, "rate"),
        ("POST", f"/agents/{NAME}/limit", {"mode": "never"}, 422, "mode"),
        ("POST", f"/agents/{NAME}/instances", {"url": "nonsense"}, 422, "url"),
        ("POST", f"/agents/{NAME}/instances", {}, 422, "url"),
        ("POST", f"/agents/{NAME}/instances", {"url": "http://x", "weight": 0}, 422, "weight"),
        ("POST", f"/agents/{NAME}/drain", {"reason": "x" * 80_000}, 413, "at most 65,536"),
        ("DELETE", f"/agents/{NAME}/instances?url=http://x", None, 404, "has no instance"),
        ("DELETE", f"/agents/{NAME}/instances?url=nonsense", None, 422, "url"),
        ("DELETE", f"/agents/{NAME}/instances", None, 422, "instance"),
        ("POST", f"/agents/{NAME}/explode", None, 404, ""),
    ],
)
async def test_a_wrong_order_is_told_what_is_wrong(
    api: httpx.AsyncClient, method: str, path: str, body: Any, status: int, words: str
) -> None:
    """By a problem document."""
    response = await api.request(method, path, json=body)
    assert (status, "application/problem+json") == (
        response.status_code,
        response.headers["content-type"],
    ), response.text
    assert status == response.json()["status_code"]
    assert words in response.json()["detail"]


async def test_an_order_by_temporals_command_line_is_obeyed(
    stack: Stack, api: httpx.AsyncClient, agent: Agent
) -> None:
    """The API knows it within two seconds, and refuses what goes nowhere."""
    await stack.temporal(
        *UPDATE, "--name", "trip", "--input", json.dumps({"agent": NAME, "by": "ann"})
    )
    began = time.monotonic()

    async def known() -> bool:
        return bool("forced_open" == (await look(api))["breaker"])

    await eventually(known, what="the order")
    await stack.agreed()
    seconds = time.monotonic() - began
    refused = await run(api)
    with pytest.raises(AssertionError) as caught:
        await stack.temporal(
            *UPDATE, "--name", "trip", "--input", json.dumps({"agent": NAME, "instnace": agent.url})
        )
    await order(stack, api, "reset")

    assert seconds < SEEN_SECONDS
    assert 503 == refused["code"]
    assert "instnace: Extra inputs are not permitted" in str(caught.value)


async def test_the_command_steers_agents(
    stack: Stack, api: httpx.AsyncClient, agent: Agent
) -> None:
    """And shows them, as tables and as JSON; an error is one clear line."""
    drained = await command(stack, "drain", NAME, "--reason", "upgrade [a]", "--json")
    limited = await command(stack, "limit", NAME, "--max-connections", "9")
    listed = await command(stack)
    shown = await command(stack, "show", NAME)
    happened = await command(stack, "events", "--agent", NAME, "--limit", "2", "--json")
    resumed = await command(stack, "resume", NAME, "--instance", agent.url)
    await order(stack, api, "limit", clear=True)
    wrong = await command(stack, "drain", "tset_agent")

    assert [0] * 6 == [each[0] for each in (drained, limited, listed, shown, happened, resumed)]
    assert json.loads(drained[1])["instances"][0]["draining"]
    for words in (NAME, "1 of 1 healthy, 1 draining", "9 at once for each worker"):
        assert words in listed[1]
    for words in (agent.url, "draining", "upgrade [a]", "set at run time: max_connections"):
        assert words in shown[1]
    assert ["limit_set", "drained"] == [each["what"] for each in json.loads(happened[1])]
    assert (
        3,
        "",
        "orchestrator: Agent 'tset_agent' is not known; did you mean 'test_agent'?\n",
    ) == wrong


async def test_a_fleet_that_was_ended_comes_back(stack: Stack, api: httpx.AsyncClient) -> None:
    """With the configuration, and without what was ordered before."""
    await order(stack, api, "drain")
    await stack.temporal("workflow", "terminate", "--workflow-id", "agent-fleet", "--reason", "why")

    async def back() -> Any:
        found = await look(api)
        health = (await api.get("/health")).json()
        well = found["healthy"] and found["fleet"]["reachable"]
        return health if well and health["status"] == "healthy" else None

    health = await eventually(back, what="the new fleet")
    assert 1 == health["agents_healthy"]
    assert "completed" == (await run(api))["status"]
