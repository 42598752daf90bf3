"""The product with keys: whose tasks are whose, and what each key may do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner

from orchestrator.security.command import command
from tests.e2e.security.stage import (
    FAILING,
    Clients,
    as_told,
    config,
    task,
)
from tests.support.agents import Agent
from tests.support.keys import make
from tests.support.stack import Stack, eventually, running

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


AMQP_PASSWORD = "planted-amqp-password-0451"  # noqa: S105


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    keys: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product with keys and quotas."""
    async with Agent(decide=as_told) as agent:
        configured = config(agent, keys[0])
        configured["security"]["quotas"] = {
            "small": {"running": 2, "daily": 5},
            "quick": {"rate": 1, "burst": 2},
        }
        # Nobody listens there: what fails is logged.
        configured["message_queue"] = {
            "type": "rabbitmq",
            "url": f"amqp://guest:{AMQP_PASSWORD}@127.0.0.1:9/",
            "events": False,
        }
        async with running(tmp_path_factory.mktemp("stack"), configured) as started:
            yield started


@pytest.mark.parametrize("url", ["/orchestrate", "/orchestrate?dry_run=true"])
async def test_nobody_submits_without_a_key(clients: Clients, url: str) -> None:
    """By the shorter way and by the application alike: 401, and how to say who one is."""
    answer = await clients.nobody.post(url, json=task())
    assert (401, 'Bearer realm="orchestrator"') == (
        answer.status_code,
        answer.headers["www-authenticate"],
    )
    assert "application/problem+json" == answer.headers["content-type"]


@pytest.mark.parametrize("url", ["/status/x", "/status/x?a=b", "/tasks", "/agents", "/metrics"])
async def test_nor_looks_at_anything(clients: Clients, url: str) -> None:
    """401, whatever it is."""
    assert 401 == (await clients.nobody.get(url)).status_code


@pytest.mark.parametrize("path", ["/metrics", "/traffic"])
async def test_numbers_of_all_tenants_take_a_key_for_all(
    clients: Clients, keys: tuple[Path, dict[str, str]], path: str
) -> None:
    """In JSON as in text; one that may only read is enough."""
    watcher = make(keys[0], "--name", "watcher", "--tenant", "*", "--scope", "read")
    headers = {"Authorization": f"Bearer {watcher['key']}"}

    async def seen() -> bool:
        return (await clients.nobody.get(path, headers=headers)).status_code == 200

    await eventually(seen, what="the watcher's key")
    for accept in ("application/json", "text/plain"):
        given = {"Accept": accept}
        refused = await clients.acme.get(path, headers=given)
        assert 403 == refused.status_code
        assert f"GET {path} concerns all tenants" in refused.json()["detail"]
        assert 200 == (await clients.root.get(path, headers=given)).status_code


async def test_health_is_everybodys(clients: Clients) -> None:
    """A load balancer has no key."""
    assert 200 == (await clients.nobody.get("/health")).status_code


async def test_a_mistyped_key_is_not_taken(clients: Clients) -> None:
    """And is not repeated in the answer."""
    wrong = clients.made["acme"][:-1] + ("0" if clients.made["acme"][-1] != "0" else "1")
    headers = {"Authorization": f"Bearer {wrong}"}
    answer = await clients.nobody.get("/tasks", headers=headers)
    assert (401, True) == (answer.status_code, wrong not in answer.text)


async def test_the_keys_tenant_is_the_tasks(clients: Clients) -> None:
    """A request that names none gets the key's."""
    answer = await clients.acme.post("/orchestrate", json=task(), headers={"Prefer": "wait=20"})
    found = await clients.acme.get(f"/status/{answer.json()['task_id']}")
    assert ("completed", "acme") == (answer.json()["status"], found.json()["tenant"])


async def test_another_tenant_is_refused_but_to_admins(clients: Clients) -> None:
    """403 to the one, 202 to the other."""
    body = task(tenant="globex")
    refused = await clients.acme.post("/orchestrate", json=body)
    batch = await clients.acme.post("/orchestrate/batch", json=[task(), body])
    joined = await clients.acme.post("/aggregate", json={"tasks": [body]})
    allowed = await clients.root.post("/orchestrate", json=body)
    assert [403, 403, 403, 202] == [each.status_code for each in (refused, batch, joined, allowed)]


async def begun(clients: Clients, kind: str) -> str:
    """A task of acme's that has ended; an item of a batch where that is the kind."""
    single, many = ("/orchestrate", task(kind)), ("/orchestrate/batch", [task()])
    path, body = many if kind == "batch" else single
    answer = (await clients.acme.post(path, json=body, headers={"Prefer": "wait=20"})).json()
    if kind == "batch":
        answer = (await clients.acme.get(f"/batches/{answer['batch_id']}/results")).json()
    return str(answer["task_id"])


@pytest.mark.parametrize("kind", ["work", "fast", "small", "batch"])
async def test_a_foreign_task_is_as_one_that_never_was(clients: Clients, kind: str) -> None:
    """The same 404, but for the id, to every request about it; however it is dispatched."""
    task_id = await begun(clients, kind)
    unknown = "550e8400-e29b-41d4-a716-446655440000"
    for method, path, body in (
        ("GET", "/status/{}", None),
        ("GET", "/status/{}?by=the-application", None),
        ("POST", "/tasks/{}/cancel", None),
        ("POST", "/tasks/{}/priority", {"priority": 5}),
        ("GET", "/status/{}/events", None),
        ("GET", "/dead-letters/{}", None),
        ("GET", "/callbacks/{}", None),
        ("POST", "/dead-letters/{}/redrive", {}),
        ("POST", "/dead-letters/{}/discard", {}),
    ):
        foreign, missing = [
            await clients.globex.request(
                method, path.format(each), json=body, headers={"Prefer": "wait=5"}
            )
            for each in (task_id, unknown)
        ]
        assert (404, missing.text) == (
            foreign.status_code,
            foreign.text.replace(task_id, unknown),
        ), path
    assert 200 == (await clients.acme.get(f"/status/{task_id}")).status_code


async def test_lists_show_the_keys_tenant_alone(clients: Clients) -> None:
    """Asked for or not; asking for another's is refused."""
    await clients.acme.post("/orchestrate", json=task(), headers={"Prefer": "wait=20"})
    await clients.globex.post("/orchestrate", json=task(), headers={"Prefer": "wait=20"})

    async def listed() -> set[str] | None:
        found = (await clients.root.get("/tasks")).json()["tasks"]
        return {each["tenant"] for each in found} if len(found) > 1 else None

    assert {"acme", "globex"} <= await eventually(listed)
    own = (await clients.globex.get("/tasks")).json()["tasks"]
    assert {"globex"} == {each["tenant"] for each in own}
    refused = await clients.globex.get("/tasks?tenant=acme")
    assert 403 == refused.status_code


async def test_batches_are_their_tenants(clients: Clients) -> None:
    """Its status, its results, its cancellation, and the list."""
    begun = await clients.acme.post(
        "/orchestrate/batch", json=[task(), task()], headers={"Prefer": "wait=20"}
    )
    batch_id = begun.json()["batch_id"]
    answers = [
        (await clients.globex.request(method, f"/batches/{batch_id}{rest}")).status_code
        for method, rest in (
            ("GET", ""),
            ("GET", "/results"),
            ("GET", "/events"),
            ("POST", "/cancel"),
            ("POST", "/redrive"),
        )
    ]
    assert [404] * 5 == answers
    assert 200 == (await clients.acme.get(f"/batches/{batch_id}")).status_code

    async def listed() -> bool:
        found = (await clients.acme.get("/batches")).json()["batches"]
        return batch_id in {each["batch_id"] for each in found}

    assert await eventually(listed)
    others = (await clients.globex.get("/batches")).json()["batches"]
    assert batch_id not in {each["batch_id"] for each in others}


async def test_aggregates_are_their_tenants_and_join_no_foreign_tasks(clients: Clients) -> None:
    """A foreign task that runs is as unknown to it as one that never was."""
    slow = {"pattern": "work", "payload": {"reply": {"delay": 4}}}
    single = (await clients.acme.post("/orchestrate", json=slow)).json()["task_id"]
    small = (await clients.acme.post("/orchestrate", json=slow | {"pattern": "small"})).json()
    body = {"task_ids": [single, small["task_id"]]}
    foreign = await clients.globex.post("/aggregate", json=body, headers={"Prefer": "wait=20"})
    assert (200, 2, 0) == (
        foreign.status_code,
        foreign.json()["failed"],
        foreign.json()["pending"],
    )
    aggregate_id = foreign.json()["aggregate_id"]
    assert 404 == (await clients.acme.get(f"/aggregate/{aggregate_id}")).status_code
    assert 404 == (await clients.acme.get(f"/aggregate/{aggregate_id}/events")).status_code
    assert 404 == (await clients.acme.post(f"/aggregate/{aggregate_id}/redrive")).status_code
    own = await clients.acme.post("/aggregate", json=body, headers={"Prefer": "wait=30"})
    assert 2 == own.json()["completed"]


async def test_dead_letters_are_their_tenants(clients: Clients) -> None:
    """Listed, redriven and discarded by nobody else, singly or by a filter."""
    failed = await clients.acme.post("/orchestrate", json=FAILING, headers={"Prefer": "wait=20"})
    task_id = failed.json()["task_id"]

    async def listed() -> bool:
        found = (await clients.acme.get("/dead-letters")).json()["dead_letters"]
        return task_id in {each["task_id"] for each in found}

    assert await eventually(listed)
    assert [] == (await clients.globex.get("/dead-letters")).json()["dead_letters"]
    many = await clients.globex.post("/dead-letters/discard", json={"all": True, "dry_run": True})
    assert 0 == many.json()["matched"]
    order = await clients.acme.post("/dead-letters/redrive", json={"all": True})
    redrive = f"/dead-letters/redrives/{order.json()['redrive_id']}"
    assert [200, 404] == [
        (await each.get(redrive)).status_code for each in (clients.acme, clients.globex)
    ]


async def test_scopes_bound_what_a_key_may_do(clients: Clients) -> None:
    """A reader submits nothing; a tenant's operator steers no agents, which all share."""
    refused = await clients.reader.post("/orchestrate", json=task())
    assert (403, True) == (
        refused.status_code,
        'scope="submit"' in refused.headers["www-authenticate"],
    )
    assert 200 == (await clients.reader.get("/tasks")).status_code
    orders = [
        (await each.post("/agents/test_agent/resume")).status_code
        for each in (clients.reader, clients.acme, clients.root)
    ]
    assert [403, 403, 200] == orders


async def test_the_same_idempotency_key_is_another_ones_of_another_tenant(
    clients: Clients,
) -> None:
    """Neither is told of the other's request."""
    headers = {"Idempotency-Key": "shared"}
    for url, body in (("/orchestrate", task()), ("/aggregate", {"tasks": [task()]})):
        answers = [
            await each.post(url, json=body, headers=headers)
            for each in (clients.acme, clients.globex)
        ]
        assert ["idempotency-replayed" in each.headers for each in answers] == [False, False]


async def test_submissions_a_minute_are_bounded(clients: Clients) -> None:
    """429 says which quota it is, and when to come back."""
    answers = [await clients.quick.post("/orchestrate", json=task()) for _ in range(3)]
    assert [202, 202, 429] == [each.status_code for each in answers]
    assert ["1", "0", "0"] == [each.headers["ratelimit-remaining"] for each in answers]
    assert ("rate", True) == (
        answers[2].json()["quota"],
        0 < int(answers[2].headers["retry-after"]) <= 60,
    )


async def test_running_and_daily_tasks_are_bounded(clients: Clients, stack: Stack) -> None:
    """Singly or in a batch; what has ended makes room among those that run, not in the day."""
    slow, url = {"pattern": "small", "payload": {"reply": {"delay": 3}}}, stack.apis[0]
    first = await clients.small.post(f"{url}/orchestrate", json=slow)
    batch = await clients.small.post(f"{url}/orchestrate/batch", json=[slow, slow])
    second = await clients.small.post(f"{url}/orchestrate/batch", json=[slow])
    third = await clients.small.post(f"{url}/orchestrate", json=slow)
    assert [202, 429, 202, 429] == [each.status_code for each in (first, batch, second, third)]
    assert "running" == third.json()["quota"]

    async def again() -> bool:
        answer = await clients.small.post(
            f"{url}/orchestrate", json=task(), headers={"Prefer": "wait=20"}
        )
        return answer.status_code == 200

    for _ in range(3):
        assert await eventually(again)
    last = await clients.small.post(f"{url}/orchestrate", json=task())
    assert (429, "daily") == (last.status_code, last.json()["quota"])


async def test_a_revoked_key_is_refused_within_moments(
    clients: Clients, keys: tuple[Path, dict[str, str]]
) -> None:
    """As soon as the processes have seen the file; a new one is taken as soon."""
    made = make(keys[0], "--name", "short", "--tenant", "acme")
    headers = {"Authorization": f"Bearer {made['key']}"}

    async def answers(status: int) -> bool:
        return status == (await clients.nobody.get("/tasks", headers=headers)).status_code

    await eventually(lambda: answers(200), 10)
    CliRunner().invoke(command, ["revoke", made["id"], "--file", str(keys[0])])
    await eventually(lambda: answers(401), 10)


async def test_a_session_is_a_cookie_that_scripts_cannot_use(
    clients: Clients, stack: Stack
) -> None:
    """Login, look, act with the header and not without it, log out."""
    async with stack.client() as browser:
        page = await browser.get("/", headers={"Accept": "text/html"})
        login = await browser.post("/session", json={"key": clients.made["acme"]})
        cookie = login.headers["set-cookie"].lower()
        assert (303, 200) == (page.status_code, login.status_code)
        assert all(each in cookie for each in ("httponly", "samesite=strict", "max-age"))
        assert clients.made["acme"] not in login.text + cookie
        assert "acme" == (await browser.get("/session")).json()["tenant"]
        assert 200 == (await browser.get("/tasks")).status_code
        bare = await browser.post("/orchestrate", json=task())
        ours = {"X-Requested-With": "test"}
        good = await browser.post("/orchestrate", json=task(), headers=ours)
        foreign = await browser.post(
            "/orchestrate", json=task(), headers=ours | {"Origin": "https://evil.example"}
        )
        assert [403, 202, 403] == [each.status_code for each in (bare, good, foreign)]
        assert 204 == (await browser.delete("/session", headers=ours)).status_code
        assert 401 == (await browser.get("/tasks")).status_code


async def test_a_broker_that_is_away_gives_no_password_away(stack: Stack) -> None:
    """The log says why it does not answer, and not how one speaks to it."""

    async def told() -> bool:
        return "broker_lost" in stack.said()

    assert await eventually(told, what="the broker's absence")
    assert AMQP_PASSWORD not in stack.said() + stack.complained()
