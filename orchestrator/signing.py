"""Signatures of callbacks, as the Standard Webhooks define them (version 1). Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

PREFIX = "whsec_"
FEWEST_BYTES, MOST_BYTES = 24, 64


def key_of(secret: str) -> bytes:
    """The key in a secret: ``whsec_`` and base64 of 24 to 64 bytes.

    Raises:
        ValueError: it has another form.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not FEWEST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(
            f"{PREFIX} and base64 of {FEWEST_BYTES} to {MOST_BYTES} bytes; make one with: "
            f'echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return key


def signature(keys: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: one signature by each key, so that keys can be changed."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(each).decode()}" for each in digests)
