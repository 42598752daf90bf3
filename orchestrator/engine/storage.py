"""Large payloads outside of the engine, which is given a reference in their place.

A payload's key names the workflow that it belongs to, the day it was stored, and its content:

    NAMESPACE/WORKFLOW ID/20260115/DIGEST

So a payload that is stored again, after a retry or in a replay, is found there; and a clean-up
knows whom to ask whether it is needed. Of a later day it is another object: what is old enough to
be removed is never taken for new.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypeVar
from urllib.parse import quote, unquote

from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)

from orchestrator.engine.encryption import CONTENT_ID, ENCODING
from orchestrator.engine.objects import CONNECTIONS, Objects
from orchestrator.engine.rpc import beside_engine
from orchestrator.errors import PayloadUnreadable

DRIVER = "orchestrator"
"""In every reference; no other configuration reads them by another name."""
_CLAIM = "key"
_PART_CHARACTERS = 200
"""Of a file's name; a longer id has several parts."""
_MOST_CHARACTERS = 800
"""Of an id; S3 allows a key 1,024."""
UNOWNED = "~"
"""Begins the parts of a key that name no workflow; no id does, where it is written so."""
R = TypeVar("R")
_KEY = re.compile(r"(?:[A-Za-z0-9_%~-]+/){2,12}(\d{8})/([0-9a-f]{64})")


@dataclass(frozen=True)
class Place:
    """What a key tells.

    Args:
        workflow_id: None where it belongs to none, or to one whose id is too long.
        day: when it was stored, UTC.
        digest: of its content.
    """

    namespace: str
    workflow_id: str | None
    day: date
    digest: str


def key_of(context: StorageDriverStoreContext, digest: str, day: date) -> str:
    """The key of a payload."""
    target = context.target
    namespace = _written(target.namespace) if target else UNOWNED
    owner = _written(target.id or "") if isinstance(target, StorageDriverWorkflowInfo) else ""
    if not owner:
        owner = UNOWNED
    elif len(owner) > _MOST_CHARACTERS:
        owner = UNOWNED + hashlib.sha256(owner.encode()).hexdigest()
    parts = [
        owner[begin : begin + _PART_CHARACTERS] for begin in range(0, len(owner), _PART_CHARACTERS)
    ]
    return "/".join([namespace, *parts, f"{day:%Y%m%d}", digest])


def place_of(key: str) -> Place | None:
    """What a key tells; None for what is none of ours."""
    found = _KEY.fullmatch(key)
    try:
        day = datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC).date() if found else None
    except ValueError:
        return None
    if found is None or day is None:
        return None
    namespace, *parts = key.split("/")[:-2]
    owner = None if parts[0].startswith(UNOWNED) else unquote("".join(parts))
    return Place(unquote(namespace), owner, day, found[2])


def prefix_of(namespace: str) -> str:
    """Of the keys of a namespace."""
    return f"{_written(namespace)}/"


def _written(text: str) -> str:
    """A text as parts of keys have it: neither ``.`` nor ``..`` is one."""
    return quote(text, safe="").replace(".", "%2E").replace("~", "%7E")


class PayloadDriver(StorageDriver):
    """Stores payloads, and reads them again; what it cannot find or trust fails clearly."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="payloads")

    def name(self) -> str:
        """As references name it."""
        return DRIVER

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Keep payloads, and say by which key each is found."""
        day = datetime.now(UTC).date()
        with beside_engine():
            return await asyncio.gather(
                *(self._in_thread(self._store, context, each, day) for each in payloads)
            )

    def _store(
        self, context: StorageDriverStoreContext, payload: Payload, day: date
    ) -> StorageDriverClaim:
        data = payload.SerializeToString(deterministic=True)
        key = key_of(context, _content_id(payload) or hashlib.sha256(data).hexdigest(), day)
        self._objects.put(key, data)
        return StorageDriverClaim({_CLAIM: key})

    async def retrieve(
        self,
        context: StorageDriverRetrieveContext,  # noqa: ARG002 - the SDK's signature
        claims: Sequence[StorageDriverClaim],
    ) -> list[Payload]:
        """The payloads that were kept.

        Raises:
            ObjectMissing: one is not there.
            PayloadUnreadable: one is not what was kept.
        """
        with beside_engine():
            return await asyncio.gather(*(self._in_thread(self._load, each) for each in claims))

    def _load(self, claim: StorageDriverClaim) -> Payload:
        key = claim.claim_data.get(_CLAIM, "")
        place = place_of(key)
        if place is None:
            raise PayloadUnreadable("A payload's reference names no object of payloads.storage")
        data = self._objects.get(key)
        payload = Payload()
        with contextlib.suppress(DecodeError):
            payload.ParseFromString(data)
            if place.digest in {_content_id(payload), hashlib.sha256(data).hexdigest()}:
                return payload
        raise PayloadUnreadable(
            f"The object {key} in {self._objects.place} is not the payload that was stored: it was "
            "changed"
        )

    async def _in_thread(self, act: Callable[..., R], *arguments: object) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, act, *arguments)


def _content_id(payload: Payload) -> str | None:
    """What an encrypted payload says of its content; decryption proves it."""
    if payload.metadata.get("encoding") != ENCODING or CONTENT_ID not in payload.metadata:
        return None
    return payload.metadata[CONTENT_ID].decode(errors="replace")
