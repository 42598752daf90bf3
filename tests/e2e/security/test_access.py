"""Every path of the API by who asks: another tenant, a reader, nobody; tokens; what is kept."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from orchestrator.security.sessions import COOKIE
from tests.e2e.security.operations import EVERYBODYS, OPERATIONS, Operation
from tests.e2e.security.stage import (
    AGENT_SECRET,
    CALLBACK_SECRET,
    FAILING,
    Clients,
    as_told,
    config,
    task,
)
from tests.support.agents import Agent
from tests.support.identity import AUDIENCE, Provider
from tests.support.keys import make
from tests.support.redis import redis_server
from tests.support.stack import BIN, START_SECONDS, Stack, eventually, free_port, running

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

REDIS_PASSWORD = "planted-redis-password-0451"  # noqa: S105
SESSION_SECRET = "planted-session-secret-0451-0451-0451"  # noqa: S105
COMPLETION_SECRET = "planted-completion-secret-0451-0451"  # noqa: S105
MARK = "planted-payload-that-is-kept-0451"
LONG_AGO, FAR_AWAY = 1_000_000_000, 4_000_000_000
"""In seconds since 1970."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[Provider]:
    """Who gives tokens."""
    async with Provider() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """Does as each payload says; receives callbacks too."""
    async with Agent(decide=as_told) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    keys: tuple[Path, dict[str, str]],
    provider: Provider,
    agent: Agent,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """The product with keys, tokens, a broker that asks for a password, and secrets planted."""
    with redis_server(tmp_path_factory.mktemp("redis")) as broker:
        async with Redis.from_url(broker.url) as redis:
            await redis.config_set("requirepass", REDIS_PASSWORD)
        url = broker.url.replace("//", f"//:{REDIS_PASSWORD}@")
        configured = config(agent, keys[0])
        configured["security"] |= {
            "jwt": {"issuer": provider.issuer, "audience": AUDIENCE, "jwks": provider.url},
            "session_secret": SESSION_SECRET,
            "quotas": {"quick": {"rate": 1, "burst": 2}, "small": {"running": 3, "daily": 4}},
        }
        configured["completions"] = {"secret": COMPLETION_SECRET}
        configured["message_queue"] = {"type": "redis", "url": url}
        configured["rate_limiting"] = {"redis": url, "default_rate": 100_000, "burst_size": 10_000}
        async with running(tmp_path_factory.mktemp("stack"), configured) as started:
            yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acmes(clients: Clients, agent: Agent) -> dict[str, str]:
    """What a tenant has, by the names that the paths have for it."""
    acme, wait = clients.acme, {"Prefer": "wait=30"}

    async def handed_in(path: str, body: Any, name: str) -> str:
        answer = await acme.post(path, json=body, headers=wait)
        assert answer.is_success, answer.text
        return str(answer.json()[name])

    told = FAILING | {"callback_url": f"{agent.url}/hook"}
    failed = await handed_in("/orchestrate", told, "task_id")
    found = {
        "task_id": failed,
        "callback_id": failed,
        "batch_id": await handed_in("/orchestrate/batch", [task(), FAILING], "batch_id"),
        "aggregate_id": await handed_in("/aggregate", {"task_ids": [failed]}, "aggregate_id"),
        "name": "test_agent",
        "token": "not-a-token",
    }

    async def there() -> bool:
        paths = ("dead-letters", "callbacks")
        answers = [await acme.get(f"/{path}/{failed}") for path in paths]
        return all(each.is_success for each in answers)

    await eventually(there, what="dead letter and callback")
    none = {"filter": {"pattern": "no such"}}
    found["redrive_id"] = await handed_in("/dead-letters/redrive", none, "redrive_id")
    found["order_id"] = await handed_in("/tasks/cancel", none, "order_id")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(stack: Stack) -> AsyncIterator[str]:
    """Where another API process on the same engine answers."""
    port = free_port()
    async with stack.joined("api", port):

        async def ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                async with httpx.AsyncClient() as client:
                    found = await client.get(f"http://127.0.0.1:{port}/health")
                    return bool(found.json()["status"] == "healthy")
            return False

        await eventually(ready, START_SECONDS, "the second API")
        yield f"http://127.0.0.1:{port}"


async def test_processes_share_a_rate(clients: Clients, second: str) -> None:
    """By Redis: both together accept what one would."""
    answers = [
        await clients.quick.post(f"{base}/orchestrate", json=task())
        for base in ("", second, "", second)
    ]
    assert [202, 202, 429, 429] == [each.status_code for each in answers]
    assert ["1", "0", "0", "0"] == [each.headers["ratelimit-remaining"] for each in answers]


async def test_processes_see_what_others_have_started(
    clients: Clients, stack: Stack, second: str
) -> None:
    """By the engine's lists: running and daily quotas hold over both."""
    small, first = clients.small, stack.apis[0]
    slow = {"pattern": "work", "payload": {"reply": {"delay": 300}}}

    async def running() -> list[str]:
        found = (await small.get("/tasks")).json()["tasks"]
        return [each["task_id"] for each in found if each["status"] in {"queued", "running"}]

    async def listed(tasks: int) -> None:
        async def seen() -> bool:
            return len(await running()) == tasks

        await eventually(seen, what=f"{tasks} tasks in the list")

    async def cancel(task_id: str) -> None:
        await small.post(f"/tasks/{task_id}/cancel", headers={"Prefer": "wait=30"})

    begun = [await small.post(f"{first}/orchestrate", json=slow) for _ in range(3)]
    assert [202] * 3 == [each.status_code for each in begun]
    assert begun[2].headers["ratelimit"].startswith('"tenant-small-running";r=0, "tenant-small-d')
    await listed(3)
    full = await small.post(f"{second}/orchestrate", json=slow)
    assert (429, "running") == (full.status_code, full.json()["quota"])
    assert '"tenant-small-running";r=0;t=5' == full.headers["ratelimit"]
    await cancel((await running())[0])

    async def again() -> bool:
        return (await small.post(f"{first}/orchestrate", json=slow)).status_code == 202

    await eventually(again, what="room")
    await listed(3)
    await cancel((await running())[0])
    await listed(2)

    async def by_day() -> httpx.Response | None:
        answer = await small.post(f"{second}/orchestrate", json=slow)
        assert answer.status_code == 429
        return answer if answer.json()["quota"] == "daily" else None

    over = await eventually(by_day, what="a refusal by the day")
    assert '"tenant-small-daily";q=4;w=86400' == over.headers["ratelimit-policy"]
    for each in await running():
        await cancel(each)


async def answered(
    client: httpx.AsyncClient, asked: Operation, names: dict[str, str]
) -> httpx.Response:
    """The answer to an operation about what the names stand for."""
    return await client.request(
        asked.method, asked.path.format_map(names), json=asked.body, headers={"Prefer": "wait=5"}
    )


@pytest.mark.parametrize("asked", OPERATIONS, ids=lambda each: f"{each.method} {each.path}")
async def test_no_path_leads_to_another_tenants(
    clients: Clients, acmes: dict[str, str], asked: Operation
) -> None:
    """404 for what is named, 403 for what all share, and nothing of it in any other answer."""
    answer = await answered(clients.globex, asked, acmes)
    ids = {value for name, value in acmes.items() if name.endswith("_id")}
    where = f"{answer.status_code} {answer.text}"
    if "_id}" in asked.path:
        assert 404 == answer.status_code, where
    elif "{name}" in asked.path and (asked.method, asked.path) not in EVERYBODYS:
        assert 403 == answer.status_code, where
    else:
        assert 500 > answer.status_code, where
        assert [] == [each for each in (*ids, "acme") if each in answer.text], where


@pytest.mark.parametrize("asked", OPERATIONS, ids=lambda each: f"{each.method} {each.path}")
async def test_no_path_is_open_that_is_not_meant_to_be(
    clients: Clients, acmes: dict[str, str], asked: Operation
) -> None:
    """Without a key 401; a key that may only read does nothing."""
    by_nobody = await answered(clients.nobody, asked, acmes)
    by_reader = await answered(clients.reader, asked, acmes)
    if asked.scope is not None:
        assert 401 == by_nobody.status_code
    if asked.scope not in {None, "read"}:
        assert 403 == by_reader.status_code
    public = {"/health", "/live", "/ready", "/session", "/completions/{token}"}
    assert (asked.scope is None) == (asked.path in public)


async def test_the_tenant_itself_has_all_of_it(clients: Clients, acmes: dict[str, str]) -> None:
    """What was denied to the other is there: the paths were right."""
    for asked in OPERATIONS:
        if asked.method == "GET" and "_id}" in asked.path and "/events" not in asked.path:
            answer = await answered(clients.acme, asked, acmes)
            assert 200 == answer.status_code, asked.path


async def test_a_token_tells_who_one_is(clients: Clients, stack: Stack, provider: Provider) -> None:
    """Its tenant and its scopes are those of its claims."""
    headers = {"Authorization": f"Bearer {provider.token()}"}
    async with stack.client(headers=headers) as ann:
        who = (await ann.get("/session")).json()
        answer = await ann.post("/orchestrate", json=task(), headers={"Prefer": "wait=30"})
        task_id = answer.json()["task_id"]
        orders = [
            (await ann.request(method, path, json=body)).status_code
            for method, path, body in (
                ("POST", "/orchestrate", task(tenant="globex")),
                ("POST", "/dead-letters/redrive", {"all": True}),
                ("POST", "/agents/test_agent/drain", {}),
            )
        ]
    assert {"name": "ann", "tenant": "acme", "scopes": ["read", "submit"], "kind": "token"} == who
    assert [403, 403, 403] == orders
    found = (await clients.acme.get(f"/status/{task_id}")).json()
    assert ("completed", "acme") == (found["status"], found["tenant"])
    assert 404 == (await clients.globex.get(f"/status/{task_id}")).status_code


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": LONG_AGO},
        {"exp": None},
        {"nbf": FAR_AWAY},
        {"iss": "https://other.example.com/"},
        {"aud": "other"},
        {"tenant": None},
        {"tenant": "a b"},
    ],
    ids=json.dumps,
)
async def test_a_wrong_token_is_not_taken(
    clients: Clients, provider: Provider, wrong: dict[str, Any]
) -> None:
    """401, and nothing of it is repeated."""
    headers = {"Authorization": f"Bearer {provider.token(**wrong)}"}
    answer = await clients.nobody.get("/tasks", headers=headers)
    assert (401, True) == (
        answer.status_code,
        'error="invalid_token"' in answer.headers["www-authenticate"],
    )
    assert "ann" not in answer.text


async def test_a_key_that_the_provider_withdraws_is_taken_no_more(
    clients: Clients, stack: Stack, provider: Provider
) -> None:
    """The new key is fetched when its first token comes; from then on the old one is unknown."""
    old = provider.token(jti="before")
    before = (await clients.nobody.get("/tasks", headers=_bearer(old))).status_code
    old_key = provider.newest
    provider.rotate()

    async def known() -> bool:
        answer = await clients.nobody.get("/tasks", headers=_bearer(provider.token()))
        return answer.status_code == 200

    await eventually(known, what="the new key")
    late = provider.token(old_key, jti="after")

    async def refused(api: httpx.AsyncClient) -> bool:
        await api.get("/tasks", headers=_bearer(provider.token()))
        return (await api.get("/tasks", headers=_bearer(late))).status_code == 401

    assert 200 == before
    await stack.everywhere(refused, "an old key that is unknown")


def _bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


async def run(stack: Stack, key: str, *arguments: str) -> None:
    """A command of ours against the product, with a key."""
    process = await asyncio.create_subprocess_exec(
        str(BIN / "orchestrator"),
        *arguments,
        env={**os.environ, "ORCHESTRATOR_URL": stack.url, "ORCHESTRATOR_API_KEY": key},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def audited(stack: Stack) -> list[dict[str, Any]]:
    """The lines of the audit log."""
    lines = [each for each in stack.said().splitlines() if each.startswith("{")]
    return [each for each in map(json.loads, lines) if each["event"] == "audit"]


async def test_what_operators_do_is_written_down(
    clients: Clients, stack: Stack, keys: tuple[Path, dict[str, str]]
) -> None:
    """Who, what, on what, from where, and what came of it: by HTTP, command, or a new key."""
    await clients.root.post("/agents/test_agent/resume", json={})
    await clients.acme.post("/agents/test_agent/drain", json={})
    await clients.nobody.post("/tasks/cancel", json={"all": True})
    await clients.nobody.post("/session", json={"key": clients.made["reader"]})
    await run(stack, clients.made["root"], "reset", "test_agent", "--reason", "by command")
    new = make(keys[0], "--name", "new", "--tenant", "acme")["id"]

    async def noticed() -> bool:
        await clients.root.get("/session")
        return any(new in each.get("added", ()) for each in audited(stack))

    await eventually(noticed, what="the new key")
    assert {
        ("root", "/agents/test_agent/resume", "done", "127.0.0.1"),
        ("acme", "/agents/test_agent/drain", "denied", "127.0.0.1"),
        (None, "/tasks/cancel", "denied", "127.0.0.1"),
        ("reader", "/session", "done", "127.0.0.1"),
        ("root", "/agents/test_agent/reset", "done", "127.0.0.1"),
    } <= {(e.get("actor"), e["target"], e["outcome"], e.get("client")) for e in audited(stack)}


async def test_secrets_are_in_no_log_and_no_history(
    clients: Clients, stack: Stack, provider: Provider, acmes: dict[str, str]
) -> None:
    """Nor in search attributes or error texts, after all that happened; what is to be kept is."""
    token = provider.token()
    failing = {"pattern": "work", "payload": {"reply": {"status": 500}, "mark": MARK}}
    async with stack.client(headers=_bearer(token)) as ann:
        failed = await ann.post("/orchestrate", json=failing, headers={"Prefer": "wait=30"})
        session = await ann.post("/session", json={"key": token})
    told = [
        (await clients.root.get(path)).text
        for path in (f"/status/{failed.json()['task_id']}", f"/dead-letters/{acmes['task_id']}")
    ]
    planted = {
        *(AGENT_SECRET, CALLBACK_SECRET, SESSION_SECRET, COMPLETION_SECRET, REDIS_PASSWORD),
        *clients.made.values(),
        *(token, session.cookies[COOKIE]),
    }
    contents = await asyncio.to_thread(_kept, stack)
    assert MARK in "".join(contents.values())
    assert [] == [
        (name, secret)
        for name, content in {**contents, "answers": "".join(told)}.items()
        for secret in planted
        if secret in content
    ]


def _kept(stack: Stack) -> dict[str, str]:
    """All that the product has written: its logs, and the engine's store."""
    folders = (stack.directory, stack.engine_folder)
    files = [each for folder in folders for each in folder.rglob("*") if each.is_file()]
    return {
        str(each): each.read_bytes().decode("latin-1")
        for each in files
        if each != stack.config_path
    }
