"""The codec server, as the Temporal Web UI and command line ask it."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.codec_server import CodecServer, create_app
from orchestrator.config_file import load
from orchestrator.engine.payloads import converter_of
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.exposure import is_local_only
from tests.support.keys import make
from tests.support.payloads import new_key

ORIGIN = "https://temporal.example.com"
LARGE = {"text": "x" * 300_000}


@asynccontextmanager
async def codec_server(directory: Path, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a codec server with a key and a directory."""
    config = {
        "temporal": {"address": "engine:7233", "ui_url": f"{ORIGIN}/ui"},
        "payloads": {
            "encryption": {"keys": [new_key("k1")]},
            "storage": {"type": "directory", "directory": str(directory / "payloads")},
        },
    }
    path = directory / "config.yaml"
    path.write_text(json.dumps(config | more))
    settings = load(path, {})
    converter = converter_of(settings)
    server = CodecServer(
        converter, "default", Authenticator(settings), is_local_only=is_local_only(settings)
    )
    transport = httpx.ASGITransport(create_app(settings, server))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def plain(value: Any) -> dict[str, Any]:
    """A payload in protobuf's JSON, as they send it."""
    data = json.dumps(value).encode()
    encoding = base64.b64encode(b"json/plain").decode()
    return {"metadata": {"encoding": encoding}, "data": base64.b64encode(data).decode()}


def value_of(payload: dict[str, Any]) -> Any:
    """What a payload in the clear holds."""
    return json.loads(base64.b64decode(payload["data"]))


async def asked(client: httpx.AsyncClient, path: str, *payloads: Any, **headers: str) -> Any:
    """The payloads that are answered."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.post(path, json={"payloads": payloads}, headers=named)
    assert 200 == answer.status_code, answer.text
    return answer.json()["payloads"]


async def test_what_was_encoded_is_decoded(tmp_path: Path) -> None:
    """And in between only the key's id is to be seen."""
    async with codec_server(tmp_path) as client:
        [hidden] = await asked(client, "/encode", plain({"a": "ä"}))
        [shown] = await asked(client, "/decode", hidden, X_Namespace="default")
    assert b"binary/encrypted" == base64.b64decode(hidden["metadata"]["encoding"])
    assert b"k1" == base64.b64decode(hidden["metadata"]["encryption-key-id"])
    assert {"a": "ä"} == value_of(shown)


async def test_what_is_in_the_clear_is_shown_as_it_is(tmp_path: Path) -> None:
    """Histories may have begun before encryption was turned on."""
    async with codec_server(tmp_path) as client:
        [hidden] = await asked(client, "/encode", plain(1))
        found = await asked(client, "/decode", plain(2), hidden)
    assert [2, 1] == list(map(value_of, found))


async def test_the_last_part_of_the_path_decides(tmp_path: Path) -> None:
    """So that it may be mounted anywhere, for each namespace for example."""
    async with codec_server(tmp_path) as client:
        [hidden] = await asked(client, "/codec/default/encode", plain(1))
        assert [1] == list(map(value_of, await asked(client, "/a/decode", hidden)))
        assert 404 == (await client.post("/decode/other", json={})).status_code
        assert 405 == (await client.get("/decode")).status_code


async def test_what_a_storage_keeps_is_downloaded(tmp_path: Path) -> None:
    """To decode it is to see the reference; nothing large comes unasked."""
    async with codec_server(tmp_path) as client:
        settings = load(tmp_path / "config.yaml", {})
        [stored] = await converter_of(settings).encode([LARGE])
        encoding = base64.b64encode(stored.metadata["encoding"]).decode()
        kind = base64.b64encode(stored.metadata["messageType"]).decode()
        reference = {
            "metadata": {"encoding": encoding, "messageType": kind},
            "data": base64.b64encode(stored.data).decode(),
            "externalPayloads": [{"sizeBytes": "300000"}],
        }
        assert [reference] == await asked(client, "/decode", reference)
        [found] = await asked(client, "/download", reference)
    assert value_of(found) == LARGE


async def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As a problem, and without a traceback."""
    async with codec_server(tmp_path) as one, codec_server(tmp_path) as other:
        [hidden] = await asked(one, "/encode", plain(1))
        answer = await other.post("/decode", json={"payloads": [hidden]})
    assert 503 == answer.status_code
    assert "key 'k1'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[1]", 422),
        (b"5", 422),
        (b"\xff", 422),
        (b"[" * 100_000, 422),
        (b'{"payloads": 1}', 422),
        (b"{}", 200),
    ],
)
async def test_what_is_no_request(tmp_path: Path, body: bytes, status: int) -> None:
    """It is told what one is."""
    async with codec_server(tmp_path) as client:
        answer = await client.post("/decode", content=body)
    assert status == answer.status_code


async def test_another_namespaces_payloads_are_not_read(tmp_path: Path) -> None:
    """The keys are for one."""
    async with codec_server(tmp_path) as client:
        answer = await client.post("/decode", json={}, headers={"X-Namespace": "other"})
    assert 403 == answer.status_code
    assert "is for namespace 'default', not 'other'" in answer.json()["detail"]


async def preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    """What a browser asks before a page may."""
    return await client.options(
        "/decode",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-namespace",
        },
    )


async def test_the_web_uis_pages_may_ask(tmp_path: Path) -> None:
    """With the headers that they send, and with cookies for a proxy before us."""
    async with codec_server(tmp_path) as client:
        before = await preflight(client, ORIGIN)
        answer = await client.post("/decode", json={}, headers={"Origin": ORIGIN})
    assert 200 == before.status_code
    for each in (before, answer):
        assert ORIGIN == each.headers["access-control-allow-origin"]
        assert "true" == each.headers["access-control-allow-credentials"]


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", f"{ORIGIN}.evil.com"])
async def test_other_pages_may_not(tmp_path: Path, origin: str) -> None:
    """The browser keeps the answer from them."""
    async with codec_server(tmp_path) as client:
        before = await preflight(client, origin)
        answer = await client.post("/decode", json={}, headers={"Origin": origin})
    assert 400 == before.status_code
    for each in (before, answer):
        assert "access-control-allow-origin" not in each.headers


async def test_where_callers_are_asked_a_key_for_all_tenants_is_needed(tmp_path: Path) -> None:
    """One of the API's keys, as the command line and the Web UI send it."""
    file = tmp_path / "keys.yaml"
    secrets = {
        name: make(file, "--name", name, "--tenant", tenant, "--scope", scope)["key"]
        for name, tenant, scope in (
            ("all", "*", "read"),
            ("own", "acme", "read"),
            ("submits", "*", "submit"),
        )
    }
    security = {"keys_file": str(file)}
    async with codec_server(tmp_path, security=security) as client:
        statuses = {
            name: (
                await client.post("/decode", json={}, headers={"Authorization": f"Bearer {secret}"})
            ).status_code
            for name, secret in secrets.items()
        }
        nobody = await client.post("/decode", json={}, headers={"Origin": ORIGIN})
    assert {"all": 200, "own": 403, "submits": 403} == statuses
    assert 401 == nobody.status_code
    assert ORIGIN == nobody.headers["access-control-allow-origin"]


async def test_a_site_whose_name_leads_here_reads_nothing(tmp_path: Path) -> None:
    """To a browser its pages are the codec server's own; their name tells."""
    async with codec_server(tmp_path) as client:
        [payload] = await asked(client, "/encode", plain("secret"))
        body = {"payloads": [payload]}
        answer = await client.post("/decode", json=body, headers={"Host": "evil.example:8081"})

    assert 403 == answer.status_code
    assert "evil.example" in answer.json()["detail"]
