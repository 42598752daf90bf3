"""Large payloads, and the references in their place."""

import asyncio
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)

from orchestrator.config_file import load
from orchestrator.engine.converter import data_converter
from orchestrator.engine.payloads import converter_of
from orchestrator.engine.reports import size_of
from orchestrator.engine.rpc import beside_engine, engine_call
from orchestrator.engine.storage import Place, key_of, place_of
from orchestrator.errors import EngineUnavailable, ObjectMissing, PayloadUnreadable
from tests.support.payloads import new_key

DIGEST, DAY = "a" * 64, date(2026, 1, 15)
LARGE = {"text": "x" * 300_000}


def made(directory: Path, *keys: str) -> DataConverter:
    """The converter of a configuration with a directory, and with these keys."""
    name = "ORCHESTRATOR_PAYLOADS__"
    given = {f"{name}ENCRYPTION__KEYS__{at}": key for at, key in enumerate(keys)}
    place = {
        f"{name}STORAGE__TYPE": "directory",
        f"{name}STORAGE__DIRECTORY": str(directory),
    }
    return converter_of(load(None, given | place))


def files(directory: Path) -> list[Path]:
    """What is stored."""
    return [path for path in directory.rglob("*") if path.is_file()]


def context(workflow_id: str) -> StorageDriverStoreContext:
    """Of what is stored for a workflow."""
    info = StorageDriverWorkflowInfo(namespace="default", id=workflow_id)
    return StorageDriverStoreContext(target=info)


@pytest.mark.parametrize(
    "workflow_id", ["t-1", "dead-letter/t-1", "..", ".", "~", "a b%2F", "ä/€", "x" * 700, "-"]
)
def test_a_key_tells_its_workflow(workflow_id: str) -> None:
    """Whatever characters its id has."""
    key = key_of(context(workflow_id), DIGEST, DAY)
    assert Place("default", workflow_id, DAY, DIGEST) == place_of(key)
    assert not {"", ".", ".."} & set(key.split("/"))
    assert 1024 > len(key)
    assert 255 > max(map(len, key.split("/")))


@pytest.mark.parametrize(
    "given", [context("ä" * 500), context(""), StorageDriverStoreContext(target=None)]
)
def test_a_key_of_nobody_is_known_as_such(given: StorageDriverStoreContext) -> None:
    """An id may be too long for a key."""
    place = place_of(key_of(given, DIGEST, DAY))
    assert place is not None
    assert place.workflow_id is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        f"../../etc/20260115/{DIGEST}",
        f"/etc/passwd/20260115/{DIGEST}",
        f"default/t/20261315/{DIGEST}",
        f"default/t/20260115/{DIGEST}/../x",
        f"t/20260115/{DIGEST}",
        "default/t/20260115/short",
    ],
)
def test_what_is_no_key(key: str) -> None:
    """A reference may have been made by hand."""
    assert place_of(key) is None


@pytest.mark.parametrize("keys", [(), (new_key("k1"),)])
async def test_a_large_payload_is_stored_and_found(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """The engine gets a reference that tells its size."""
    own = made(tmp_path, *keys)
    [reference] = await own.encode([LARGE])
    assert 1000 > len(reference.data)
    assert 300_000 < size_of([reference])
    assert [LARGE] == await own.decode([reference])
    assert 1 == len(files(tmp_path))


async def test_a_small_payload_stays_where_it_was(tmp_path: Path) -> None:
    """Nothing is stored for it."""
    [payload] = await made(tmp_path).encode([{"text": "x"}])
    assert b'{"text":"x"}' == payload.data
    assert [] == files(tmp_path)


@pytest.mark.parametrize("keys", [(), (new_key("k1"),)])
async def test_what_is_stored_again_is_there(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """Of retries and replays there is one object, though each encrypts anew."""
    own = made(tmp_path, *keys)
    first, second = await own.encode([LARGE]), await own.encode([LARGE])
    assert 1 == len(files(tmp_path))
    assert [LARGE, LARGE] == await own.decode([*first, *second])


async def test_what_is_stored_is_encrypted_before(tmp_path: Path) -> None:
    """Who reads the storage reads nothing."""
    await made(tmp_path, new_key("k1")).encode([{"text": "planted-secret" * 30_000}])
    [file] = files(tmp_path)
    assert b"planted-secret" not in file.read_bytes()


async def test_a_payload_that_is_gone_is_named(tmp_path: Path) -> None:
    """With the storage where it was."""
    own = made(tmp_path)
    [reference] = await own.encode([LARGE])
    [file] = files(tmp_path)
    file.unlink()
    with pytest.raises(ObjectMissing, match=f"{file.name} is not in {tmp_path}"):
        await own.decode([reference])


@pytest.mark.parametrize(
    ("keys", "data"),
    [
        ((), b"\n\x00"),
        ((), b"not a payload"),
        # Says that it is encrypted, and names itself as it should: no key has made it.
        ((), None),
        ((new_key("k1"),), None),
    ],
)
async def test_a_payload_that_was_changed_is_refused(
    tmp_path: Path, keys: tuple[str, ...], data: bytes | None
) -> None:
    """By whoever can write to the storage."""
    own = made(tmp_path, *keys)
    [reference] = await own.encode([LARGE])
    [file] = files(tmp_path)
    forged = Payload(
        metadata={
            "encoding": b"binary/encrypted",
            "encryption-cipher": b"AES-256-GCM",
            "encryption-key-id": b"k1",
            "content-id": file.name.encode(),
        },
        data=b"n" * 64,
    )
    file.write_bytes(forged.SerializeToString() if data is None else data)
    with pytest.raises(PayloadUnreadable):
        await own.decode([reference])


async def test_a_reference_made_by_hand_reaches_no_other_file(tmp_path: Path) -> None:
    """Its key has to have the form of one."""
    own = made(tmp_path / "payloads")
    [reference] = await own.encode([LARGE])
    (tmp_path / "other").write_text("x")
    reference.data = reference.data.replace(b'"key":', b'"key":"../other","was":')
    with pytest.raises(PayloadUnreadable, match="names no object"):
        await own.decode([reference])


async def test_without_a_storage_a_reference_is_told(tmp_path: Path) -> None:
    """By the engine's client."""
    [reference] = await made(tmp_path).encode([LARGE])
    with pytest.raises(RuntimeError, match="external storage is not configured"):
        await data_converter.decode([reference])


def test_nothing_configured_costs_nothing() -> None:
    """Neither codec nor storage is there."""
    own = converter_of(load(None, {}))
    assert data_converter is own
    assert own.payload_codec is None
    assert own.external_storage is None


async def _call(beside: float, engine: float) -> None:
    """A call that spends so many seconds in a storage, and then with the engine."""
    async with engine_call(timedelta(seconds=0.5)):
        with beside_engine():
            await asyncio.sleep(beside)
        await asyncio.sleep(engine)


async def test_what_a_storage_takes_is_not_the_engines() -> None:
    """A call's deadline is for the engine; the storage has its own."""
    await _call(beside=0.8, engine=0)


async def test_the_engines_deadline_holds_after_what_a_storage_took() -> None:
    """It goes on where it was left."""
    with pytest.raises(EngineUnavailable):
        await _call(beside=0, engine=60)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits: {max_payload_bytes: 2000000}", "at most 1950000, or more with payloads.storage"),
        ("payloads: {storage: {type: s3}}", "bucket is missing, which type s3 needs"),
        ("payloads: {storage: {margin: 3600}}", "greater than or equal to 172800"),
        ("payloads: {codec_server: {origins: ['http://a/b']}}", "without a path"),
    ],
)
def test_what_is_wrong_with_a_configuration(tmp_path: Path, text: str, problem: str) -> None:
    """It is told with its place."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(Exception, match=problem):
        load(path, {})


def test_with_a_storage_payloads_may_be_large() -> None:
    """Unless the configuration says otherwise."""
    on: dict[str, Any] = {"ORCHESTRATOR_PAYLOADS__STORAGE__TYPE": "directory"}
    adapted = load(None, on).limits
    told = load(None, on | {"ORCHESTRATOR_LIMITS__MAX_RESULT_BYTES": "5000"}).limits
    assert (64 << 20, 64 << 20) == (adapted.max_payload_bytes, adapted.max_result_bytes)
    assert (64 << 20, 5000) == (told.max_payload_bytes, told.max_result_bytes)
