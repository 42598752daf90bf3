"""What tasks carry: encrypted, and stored outside of the engine where it is large."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from orchestrator.batches import item_id
from tests.support.agents import Agent, Call, Reply
from tests.support.payloads import BUCKET, CREDENTIALS, REGION, holders_of, new_key, s3_server
from tests.support.stack import BIN, Stack, agent_config, eventually, free_port, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

SECRET = "planted-secret-5c1d"  # noqa: S105 - to be looked for
LARGE_BYTES = 50 * 1024 * 1024
PATIENCE = 240.0
"""Seconds: 50 MB take their time on a busy machine."""


def config(agent: Agent, **payloads: Any) -> dict[str, Any]:
    """A product whose payloads are kept so."""
    found = agent_config(agent.url, timeout=PATIENCE)
    codec = {"port": free_port()}
    return found | {"payloads": payloads | {"codec_server": codec}}


async def ended(api: httpx.AsyncClient, task_id: str) -> Any:
    """A task's final status."""

    async def final() -> Any:
        answer = await api.get(f"/status/{task_id}", headers={"Prefer": "wait=20"})
        assert 200 == answer.status_code, answer.text
        status = answer.json()
        return status["status"] in {"completed", "failed"} and status

    return await eventually(final, PATIENCE, "the task's end")


async def submitted(api: httpx.AsyncClient, payload: Any, pattern: str = "work") -> str:
    """The id of a new task."""
    answer = await api.post("/orchestrate", json={"pattern": pattern, "payload": payload})
    assert 202 == answer.status_code, answer.text
    return str(answer.json()["task_id"])


@asynccontextmanager
async def codec_server(stack: Stack) -> AsyncIterator[str]:
    """The codec server of a product, by its command; its URL."""
    log = stack.directory / "codec.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(BIN / "orchestrator"), "codec-server"),
            env=stack.variables(),
            stdout=output,
            stderr=output,
        )

    async def ready() -> bool:
        assert process.returncode is None, log.read_text()
        return "codec_server_ready" in log.read_text()

    try:
        await eventually(ready, 60, "the codec server")
        yield f"http://127.0.0.1:{stack.config['payloads']['codec_server']['port']}"
    finally:
        process.terminate()
        assert 0 == await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """The agent of the module's products; answers what it is sent unless told otherwise."""
    async with Agent(decide=_echo) as started:
        yield started


def _echo(call: Call) -> Reply:
    return Reply(body=call.body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A product that encrypts, with a directory for large payloads."""
    given = config(agent, encryption={"keys": [new_key("k1")]}, storage={"type": "directory"})
    async with running(tmp_path_factory.mktemp("stack"), given) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the product's API."""
    async with stack.client() as client:
        client.timeout = httpx.Timeout(PATIENCE)
        yield client


def _told(history: str) -> str:
    """What the payloads of a history in JSON hold."""
    texts = re.findall(r'"data": "([^"]*)"', history)
    return "".join(base64.b64decode(each).decode(errors="replace") for each in texts)


@pytest.mark.parametrize("pattern", ["work", "fast"])
async def test_nothing_that_a_task_carries_is_to_be_found(
    stack: Stack, agent: Agent, api: httpx.AsyncClient, pattern: str
) -> None:
    """Neither in the engine's file, nor in the storage, nor in a log; nor what an error quotes."""

    def answer(call: Call) -> Reply:
        if call.body.get("fails"):
            return Reply(status=500, body={"error": SECRET})
        return Reply(body={"read": call.body})

    agent.behave(answer)
    carried = {"token": SECRET, "text": (SECRET + " ") * 20_000}
    good = await ended(api, await submitted(api, carried, pattern))
    bad = await ended(api, await submitted(api, {"token": SECRET, "fails": True}, pattern))
    assert {"read": carried} == good["result"]
    assert SECRET in bad["error"]

    async def buried() -> bool:
        return SECRET in (await api.get(f"/dead-letters/{bad['task_id']}")).text

    await eventually(buried, what="the dead letter")
    assert [] == holders_of(SECRET, stack.directory) + holders_of(SECRET, stack.engine_folder)
    [key] = stack.config["payloads"]["encryption"]["keys"]
    assert ["config.yaml"] == holders_of(key.removeprefix("k1:"), stack.directory)


async def test_a_batchs_items_are_hidden_and_may_be_large(
    stack: Stack, agent: Agent, api: httpx.AsyncClient
) -> None:
    """Beyond what the engine takes for one payload."""
    agent.behave(_echo)
    texts = [SECRET, SECRET * 200_000]
    items = [{"pattern": "work", "payload": {"text": text}} for text in texts]
    answer = await api.post("/orchestrate/batch", json=items)
    assert 202 == answer.status_code, answer.text
    batch = answer.json()["batch_id"]

    async def done() -> bool:
        state = (await api.get(f"/batches/{batch}")).json()["status"]
        return state in {"completed", "failed"}

    await eventually(done, PATIENCE, "the batch's end")
    results = [await api.get(f"/status/{item_id(batch, at)}") for at in range(2)]
    assert texts == [each.json()["result"]["text"] for each in results]
    assert [] == holders_of(SECRET, stack.engine_folder)


async def test_the_command_line_reads_by_the_codec_server(
    stack: Stack, agent: Agent, api: httpx.AsyncClient
) -> None:
    """And without it sees nothing; what it sends by it is hidden too."""
    agent.behave(_echo)
    task_id = await submitted(api, {"token": SECRET})
    await ended(api, task_id)
    shown = ("workflow", "show", "--workflow-id", task_id, "--output", "json")
    by_hand = f"by-hand-{task_id}"
    async with codec_server(stack) as url:
        decoded = await stack.temporal(*shown, "--codec-endpoint", url)
        await stack.temporal(
            *("workflow", "start", "--type", "OrchestrateTask", "--task-queue", "orchestrator"),
            *("--workflow-id", by_hand, "--codec-endpoint", url),
            *("--input", json.dumps({"pattern": "work", "payload": {"token": SECRET}})),
        )
        assert {"token": SECRET} == (await ended(api, by_hand))["result"]
    assert SECRET in _told(decoded)
    assert SECRET not in _told(await stack.temporal(*shown))
    assert [] == holders_of(SECRET, stack.engine_folder)


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ({"ENCRYPTION__KEYS": "[]"}, "key 'k1', and this process has no keys"),
        ({"STORAGE__TYPE": "none"}, "this process has none: set payloads.storage"),
        ({"STORAGE__DIRECTORY": "elsewhere"}, "another payloads.storage than the one that stored"),
    ],
)
async def test_a_process_that_lacks_something_says_what(
    stack: Stack, agent: Agent, api: httpx.AsyncClient, lacking: dict[str, str], words: str
) -> None:
    """A key, or the storage: 503, since it is mended without the client."""
    agent.behave(_echo)
    task_id = await submitted(api, {"text": "x" * 300_000})
    await ended(api, task_id)
    usual, port = stack.environment, free_port()
    elsewhere = str(stack.directory / "elsewhere")
    stack.environment = {
        f"ORCHESTRATOR_PAYLOADS__{name}": value.replace("elsewhere", elsewhere)
        for name, value in lacking.items()
    }
    try:
        async with (
            stack.joined("api", port),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as other,
        ):

            async def answered() -> Any:
                try:
                    return await other.get(f"/status/{task_id}")
                except httpx.TransportError:
                    return None

            answer = await eventually(answered, 90, "the other API")
    finally:
        stack.environment = usual
    assert 503 == answer.status_code
    assert words in answer.json()["detail"]


async def test_50_mb_go_there_and_back(stack: Stack, agent: Agent, api: httpx.AsyncClient) -> None:
    """By a directory; the engine's own file stays small."""
    agent.behave(_echo)
    text = await _there_and_back(api)
    assert LARGE_BYTES == len(text)
    engine = sum(path.stat().st_size for path in stack.data_dir.glob("engine.sqlite*"))
    assert LARGE_BYTES > engine


async def test_the_storage_is_cleaned_by_a_command(stack: Stack, api: httpx.AsyncClient) -> None:
    """What is new stays; a forgotten workflow's old payload goes."""
    await ended(api, await submitted(api, {"text": "x" * 300_000}))
    root = stack.data_dir / "payloads"
    old = root / stack.namespace / "forgotten" / "20200101" / hashlib.sha256(b"").hexdigest()
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x")
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "orchestrator"), "storage", "clean", "--json"),
        env=stack.variables()
        | {
            "ORCHESTRATOR_STORAGE__DATA_DIR": str(stack.data_dir),
            "ORCHESTRATOR_TEMPORAL__ADDRESS": stack.engine,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert 0 == process.returncode, errors.decode()
    found = json.loads(output)
    assert (1, 1) == (found["removed"], found["removed_bytes"])
    assert 1 < found["stored"]
    assert not old.exists()


async def test_keys_are_turned_on_and_changed_under_running_tasks(
    agent: Agent, tmp_path: Path
) -> None:
    """What began in the clear ends, so does what began with an earlier key; all stays readable."""
    agent.behave(_echo)
    first, second = new_key("k1"), new_key("k2")
    given = config(agent) | {"temporal": {"shutdown_grace": 1}}
    async with running(tmp_path / "stack", given) as stack:
        tasks = {"clear-text": await _held(stack, agent, "clear-text")}
        # This is how a text is found that is not hidden.
        assert holders_of("clear-text", stack.engine_folder)
        for keys, name in (([first], "under-first"), ([second, first], "under-second")):
            await stack.stop()
            section = given["payloads"] | {"encryption": {"keys": keys}}
            stack.config_path.write_text(json.dumps(given | {"payloads": section}))
            await stack.start()
            async with stack.client() as client:
                for known, task_id in tasks.items():
                    assert {"text": known} == (await ended(client, task_id))["result"]
            tasks[name] = await _held(stack, agent, name)
            assert [] == holders_of(name, stack.engine_folder)


async def _held(stack: Stack, agent: Agent, text: str) -> str:
    """The id of a task that the agent has not answered, as it will when it is asked again."""
    agent.behave(lambda _: Reply(hang=True))
    async with stack.client() as client:
        task_id = await submitted(client, {"text": text})

    async def called() -> bool:
        return bool(agent.calls_of(task_id))

    await eventually(called, 60, "the call")
    agent.behave(_echo)
    return task_id


async def test_50_mb_go_there_and_back_by_s3(agent: Agent, tmp_path: Path) -> None:
    """And the result is read by a process that has never seen it."""
    agent.behave(_echo)
    with s3_server() as url:
        storage = {"type": "s3", "bucket": BUCKET, "region": REGION, "endpoint_url": url}
        keys = {"keys": [new_key("k1")]}
        given = config(agent, encryption=keys, storage=storage)
        async with (
            running(tmp_path / "stack", given, environment=CREDENTIALS) as stack,
            stack.client() as client,
        ):
            client.timeout = httpx.Timeout(PATIENCE)
            assert LARGE_BYTES == len(await _there_and_back(client))


async def _there_and_back(api: httpx.AsyncClient) -> str:
    """The text that comes back for one of 50 MB."""
    task_id = await submitted(api, {"text": "x" * LARGE_BYTES})
    status = await ended(api, task_id)
    assert "completed" == status["status"], status["error"]
    text: str = status["result"]["text"]
    return text
