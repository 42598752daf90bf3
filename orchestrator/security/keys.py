"""API keys: what they look like, and what is kept of them.

A key is 256 random bits, so its SHA-256 is all that needs to be kept: nobody can guess what to
hash, which is what slow password hashes are for. The last six characters are a checksum: a
mistyped key is told apart from an unknown one, and a scanner of source code can be certain.
"""

import hashlib
import secrets
import string
import zlib
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from orchestrator.security.callers import MAX_NAME, Caller, Scope
from orchestrator.values import Tenant

PREFIX = "ork_"
"""By which people and scanners recognise a key."""
ALL_TENANTS = "*"

_ALPHABET = string.digits + string.ascii_letters
_SECRET_DIGITS, _CHECK_DIGITS = 43, 6
KEY_CHARACTERS = len(PREFIX) + _SECRET_DIGITS + _CHECK_DIGITS

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[datetime, Field(strict=False)]
KeyName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]


def new_secret() -> str:
    """A key, such as nobody has had."""
    secret = _digits(secrets.randbits(256), _SECRET_DIGITS)
    return PREFIX + secret + _checksum(secret)


def is_key(text: str) -> bool:
    """Whether a text has the form and the checksum of a key."""
    if len(text) != KEY_CHARACTERS or not text.startswith(PREFIX) or not text.isascii():
        return False
    secret = text[len(PREFIX) : -_CHECK_DIGITS]
    return text[-_CHECK_DIGITS:] == _checksum(secret)


def digest_of(secret: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(secret: str) -> str:
    return _digits(zlib.crc32(secret.encode()), _CHECK_DIGITS)


def _digits(number: int, length: int) -> str:
    text = ""
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        text = _ALPHABET[rest] + text
    return text


class Record(BaseModel):
    """The common rules of what the keys file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Previous(Record):
    """The secret that a key had before it was rotated: taken until ``until``."""

    sha256: Digest
    until: Moment


class Key(Record):
    """A key as the file has it; the secret itself is nowhere.

    ``tenant`` is ``*`` for all tenants.
    """

    id: Annotated[str, Field(pattern=r"^key_[0-9a-f]{8,32}$")]
    name: KeyName
    tenant: Tenant | Annotated[str, Field(pattern=r"^\*$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    sha256: Digest
    created_at: Moment
    expires_at: Moment | None = None
    rotated_at: Moment | None = None
    revoked_at: Moment | None = None
    previous: Previous | None = None

    @cached_property
    def caller(self) -> Caller:
        """Who shows it."""
        tenant = None if self.tenant == ALL_TENANTS else self.tenant
        return Caller(self.name, tenant, frozenset(self.scopes), "key")

    def takes(self, digest: str, now: datetime) -> bool:
        """Whether a secret of that digest is taken now."""
        if self.state(now) != "active":
            return False
        before = self.previous
        return digest == self.sha256 or (
            before is not None and digest == before.sha256 and now < before.until
        )

    def knows(self, twice: str) -> bool:
        """Whether that is the digest of the digest of a secret that is taken now."""
        return any(
            digest_of(digest) == twice and self.takes(digest, datetime.now(UTC))
            for digest in (self.sha256, self.previous.sha256 if self.previous else "")
        )

    def state(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"


class KeyRing(Record):
    """The keys file."""

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _zones(self) -> "KeyRing":
        ids = [key.id for key in self.keys]
        if len(set(ids)) < len(ids):
            raise ValueError("two keys have the same id")
        for key in self.keys:
            until = key.previous.until if key.previous else None
            moments = (key.created_at, key.expires_at, until)
            if any(each is not None and each.tzinfo is None for each in moments):
                raise ValueError(f"{key.id}: write times with a zone, such as 2030-01-01T00:00:00Z")
        return self

    def by_digest(self) -> dict[str, Key]:
        """The keys by what their secrets hash to."""
        found = {key.previous.sha256: key for key in self.keys if key.previous}
        return found | {key.sha256: key for key in self.keys}


_tenant = TypeAdapter(Tenant)


def is_tenant(given: Any) -> bool:
    """Whether it can be the name of a tenant."""
    try:
        _tenant.validate_python(given, strict=True)
    except ValidationError:
        return False
    return True


def now() -> datetime:
    """The time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
