"""Payloads encrypted by AES-256-GCM before they leave the process, with keys that can be changed.

An encrypted payload names its key, so that earlier keys go on reading what they wrote. What was
written in the clear is read as it is.
"""

import asyncio
import hmac
import os
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from orchestrator.encryption_keys import EncryptionKey
from orchestrator.errors import PayloadUnreadable

ENCODING = b"binary/encrypted"
CIPHER = b"AES-256-GCM"
NONCE_BYTES = 12
"""Random for each payload: NIST SP 800-38D allows a key 2**32 of them."""
CONTENT_ID = "content-id"
"""A keyed digest of what a large payload held in the clear, by which storage names it."""

_LARGE_BYTES = 64 * 1024
"""What takes longer than a visit to another thread."""
_METADATA = ("encoding", "encryption-cipher", "encryption-key-id", CONTENT_ID)


class EncryptionCodec(PayloadCodec):
    """Encrypts with the first key, decrypts with the one that a payload names.

    Args:
        keys: of distinct ids.
        encrypts: false to decrypt only.
        name_from: bytes from which a payload gets a content id.
    """

    def __init__(
        self,
        keys: Sequence[EncryptionKey],
        name_from: int | None = None,
        *,
        encrypts: bool = True,
    ) -> None:
        self._encrypts = encrypts
        self._first = keys[0]
        self._ciphers = {key.id: AESGCM(key.secret) for key in keys}
        self._naming_key = hmac.digest(keys[0].secret, b"orchestrator content id", "sha256")
        self._name_from = name_from

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt them; large ones beside the event loop."""
        if not self._encrypts:
            return list(payloads)
        return [
            await asyncio.to_thread(self._sealed, each) if _is_large(each) else self._sealed(each)
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt those that are encrypted.

        Raises:
            PayloadUnreadable: its key is not there, or does not fit.
        """
        return [
            await asyncio.to_thread(self._opened, each) if _is_large(each) else self._opened(each)
            for each in payloads
        ]

    def _sealed(self, payload: Payload) -> Payload:
        # In one order, since equal payloads shall have equal content ids.
        clear = payload.SerializeToString(deterministic=True)
        metadata = {
            "encoding": ENCODING,
            "encryption-cipher": CIPHER,
            "encryption-key-id": self._first.id.encode(),
        }
        if self._name_from is not None and len(clear) >= self._name_from:
            metadata[CONTENT_ID] = hmac.digest(self._naming_key, clear, "sha256").hex().encode()
        nonce = os.urandom(NONCE_BYTES)
        cipher = self._ciphers[self._first.id]
        return Payload(
            metadata=metadata, data=nonce + cipher.encrypt(nonce, clear, _bound(metadata))
        )

    def _opened(self, payload: Payload) -> Payload:
        metadata = payload.metadata
        if metadata.get("encoding") != ENCODING:
            return payload
        key_id = metadata.get("encryption-key-id", b"").decode(errors="replace")
        cipher = self._ciphers.get(key_id)
        if metadata.get("encryption-cipher") != CIPHER:
            raise PayloadUnreadable("A payload is encrypted in a way that is not known here")
        if cipher is None:
            raise PayloadUnreadable(
                f"A payload was encrypted with key '{key_id}', which is not among those of "
                f"payloads.encryption ({', '.join(self._ciphers)}); add it after the first"
            )
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            clear = cipher.decrypt(nonce, sealed, _bound(metadata))
        except (InvalidTag, ValueError):
            raise PayloadUnreadable(
                f"A payload cannot be decrypted with key '{key_id}' of payloads.encryption: it was "
                "encrypted with another key of that id, or it was changed"
            ) from None
        opened = Payload()
        opened.ParseFromString(clear)
        return opened


def _bound(metadata: Mapping[str, bytes]) -> bytes:
    """The additional data: what a payload says of itself cannot be changed either."""
    return b"\n".join(
        name.encode() + b"=" + metadata[name] for name in _METADATA if name in metadata
    )


def _is_large(payload: Payload) -> bool:
    return len(payload.data) > _LARGE_BYTES
