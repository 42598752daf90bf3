"""Payloads, encrypted and decrypted."""

from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from orchestrator.encryption_keys import EncryptionKey
from orchestrator.engine.converter import converter, data_converter
from orchestrator.engine.encryption import CONTENT_ID, EncryptionCodec
from orchestrator.engine.reports import readable
from orchestrator.errors import PayloadUnreadable
from orchestrator.models import TaskRequest
from tests.support.payloads import new_key

SECRET = "planted-secret"  # noqa: S105 - to be looked for
FIRST, SECOND = EncryptionKey.of(new_key("k1")), EncryptionKey.of(new_key("k2"))


def codec(*keys: EncryptionKey, name_from: int | None = None) -> EncryptionCodec:
    """A codec of these keys, of the first if none is given."""
    return EncryptionCodec(keys or (FIRST,), name_from)


async def sealed(value: Any, own: EncryptionCodec | None = None) -> Payload:
    """A value as the engine gets it."""
    [payload] = await converter(codec=own or codec()).encode([value])
    return payload


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_payload_says_nothing_but_its_key(size: int) -> None:
    """Small ones and those that are encrypted in a thread alike."""
    payload = await sealed({"token": SECRET * size})
    assert SECRET.encode() not in payload.SerializeToString()
    assert {
        "encoding": b"binary/encrypted",
        "encryption-cipher": b"AES-256-GCM",
        "encryption-key-id": b"k1",
    } == dict(payload.metadata)
    assert [{"token": SECRET * size}] == await converter(codec=codec()).decode([payload])


async def test_equal_payloads_are_encrypted_differently() -> None:
    """Each has a nonce of its own."""
    assert (await sealed("a")).data != (await sealed("a")).data


async def test_after_a_rotation_earlier_keys_decrypt() -> None:
    """And the first encrypts."""
    before, own = await sealed(SECRET), codec(SECOND, FIRST)
    after = await sealed(SECRET, own)
    assert b"k2" == after.metadata["encryption-key-id"]
    assert [SECRET, SECRET] == await converter(codec=own).decode([before, after])


async def test_what_is_in_the_clear_is_read_beside_what_is_not() -> None:
    """So that encryption can be turned on under running tasks."""
    [clear] = await data_converter.encode(["clear"])
    found = await converter(codec=codec()).decode([clear, await sealed("hidden")])
    assert ["clear", "hidden"] == found


async def test_keys_may_decrypt_only() -> None:
    """Before encryption is turned on everywhere, and after it was turned off."""
    own = converter(codec=EncryptionCodec([FIRST], encrypts=False))
    [payload] = await own.encode(["clear"])
    assert b'"clear"' == payload.data
    assert ["hidden"] == await own.decode([await sealed("hidden")])


async def test_a_key_that_is_not_there_is_named() -> None:
    """With those that are."""
    with pytest.raises(PayloadUnreadable, match=r"key 'k1', which is not among .* \(k2\)"):
        await converter(codec=codec(SECOND)).decode([await sealed(SECRET)])


async def test_another_key_of_the_same_id_is_named() -> None:
    """It may have been mixed up."""
    other = EncryptionKey.of(new_key("k1"))
    with pytest.raises(PayloadUnreadable, match="cannot be decrypted with key 'k1'"):
        await converter(codec=codec(other)).decode([await sealed(SECRET)])


async def test_without_any_key_the_one_that_is_missing_is_named() -> None:
    """A process that was forgotten says so."""
    with pytest.raises(PayloadUnreadable, match="key 'k1', and this process has no keys"):
        await data_converter.decode([await sealed(SECRET)])


@pytest.mark.parametrize("name", ["data", "encryption-key-id", CONTENT_ID])
async def test_what_was_changed_is_refused(name: str) -> None:
    """The data, and what a payload says of itself."""
    own = codec(FIRST, EncryptionKey("k9", FIRST.secret), name_from=0)
    payload = await sealed(SECRET, own)
    if name == "data":
        payload.data = payload.data[:-1] + bytes([payload.data[-1] ^ 1])
    else:
        payload.metadata[name] = b"k9"
    with pytest.raises(PayloadUnreadable, match="it was changed"):
        await converter(codec=own).decode([payload])


async def test_what_others_have_encrypted_is_told() -> None:
    """Their encoding may have the same name."""
    payload = Payload(metadata={"encoding": b"binary/encrypted"}, data=b"x")
    with pytest.raises(PayloadUnreadable, match="in a way that is not known here"):
        await converter(codec=codec()).decode([payload])


async def test_a_large_payloads_content_has_a_name() -> None:
    """The same for equal ones under one key, and another under another key."""
    named = [await sealed("x" * 1000, codec(FIRST, name_from=500)) for _ in range(2)]
    other = await sealed("x" * 1000, codec(SECOND, name_from=500))
    small = await sealed("x", codec(FIRST, name_from=500))
    first, second = (each.metadata[CONTENT_ID] for each in named)
    assert first == second
    assert other.metadata[CONTENT_ID] != first
    assert CONTENT_ID not in small.metadata


async def test_a_failures_text_is_hidden() -> None:
    """It may quote what an agent has answered."""
    failure, own = Failure(), converter(codec=codec())
    await own.encode_failure(ApplicationError(SECRET, {"excerpt": SECRET}, type="Bad"), failure)
    assert SECRET.encode() not in failure.SerializeToString()
    error = await own.decode_failure(failure)
    assert isinstance(error, ApplicationError)
    assert (SECRET, "Bad", ({"excerpt": SECRET},)) == (error.message, error.type, error.details)


async def test_a_report_that_nests_too_deep_is_read_all_the_same() -> None:
    """What is left out of it is known only after it was decrypted."""
    own = converter(codec=codec())
    payload = await sealed({"payload": {}, "pattern": "p"})
    found = await readable(own, [payload], TaskRequest)
    assert found is not None
    assert "p" == found.pattern
