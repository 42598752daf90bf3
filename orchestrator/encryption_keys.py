"""Keys that payloads are encrypted with, as the configuration writes them."""

import base64
import binascii
import re
from dataclasses import dataclass, field

KEY_BYTES = 32
KEY_FORM = (
    f"ID:KEY, the id of at most 64 letters, digits, '_', '-' and '.', the key {KEY_BYTES} random "
    f"bytes in base64; make one with: openssl rand -base64 {KEY_BYTES}"
)
_KEY = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63}):(\S+)")


@dataclass(frozen=True)
class EncryptionKey:
    """One key; its text shows no secret."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, text: str) -> "EncryptionKey":
        """From ``ID:KEY``.

        Raises:
            ValueError: it is not of that form; the text is not repeated.
        """
        found = _KEY.fullmatch(text.strip())
        try:
            secret = base64.b64decode(found[2], validate=True) if found else b""
        except binascii.Error:
            secret = b""
        if found is None or len(secret) != KEY_BYTES:
            raise ValueError(KEY_FORM)
        return cls(found[1], secret)
