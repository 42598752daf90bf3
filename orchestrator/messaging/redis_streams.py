"""Tasks from a Redis stream: a consumer group, with what dead consumers held taken over."""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic_core import to_json
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from orchestrator.config import MessageQueue
from orchestrator.errors import MessageRefused
from orchestrator.messaging import Message, Take
from orchestrator.messaging.delivery import settle
from orchestrator.messaging.redis_client import TROUBLES, answering, redis_client, unavailable
from orchestrator.messaging.sessions import keep_going
from orchestrator.models import ReplyTo
from orchestrator.telemetry.logging import get_logger
from orchestrator.values import MAX_PRIORITY

BLOCK_MILLISECONDS = 1000
POISON_STATUS = 500
UNREADABLE_STATUS = 400
_PRIORITY_DIGITS = 20
"""More say no more, and of thousands no number can be made."""

log = get_logger(__name__)

Fields = Mapping[bytes, bytes]


class RedisIngest:
    """Takes tasks from the stream, as many at a time as the prefetch allows."""

    def __init__(self, settings: MessageQueue, take: Take) -> None:
        self._settings = settings
        self._take = take
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._in_hand: dict[bytes, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()
        self._claim_from = "0-0"
        self._claim_at = 0.0

    async def run(self) -> None:
        """Take tasks until cancelled, through whatever the broker does."""
        try:
            await keep_going("ingest", self._session)
        finally:
            for each in self._in_hand.values():
                each.cancel()
            await asyncio.gather(*self._in_hand.values(), return_exceptions=True)

    async def _session(self, opened: Callable[[], None]) -> None:
        redis = redis_client(self._settings)
        try:
            await self._make_group(redis)
            opened()
            while True:
                await self._read(redis)
        except TROUBLES as error:
            raise unavailable(error) from None
        finally:
            with suppress(*TROUBLES):
                await redis.aclose()

    async def _make_group(self, redis: Redis) -> None:
        try:
            async with answering():
                await redis.xgroup_create(
                    self._settings.queue, self._settings.group, "0", mkstream=True
                )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _read(self, redis: Redis) -> None:
        """Take what there is room for: what others have left first, then what is new."""
        free = self._settings.prefetch - len(self._in_hand)
        if free <= 0:
            self._ended.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(BLOCK_MILLISECONDS / 1000):
                    await self._ended.wait()
            return
        if time.monotonic() >= self._claim_at:
            free -= await self._claim(redis, free)
            if free <= 0:
                return
        settings = self._settings
        async with answering():
            found = await redis.xreadgroup(
                settings.group, self._name, {settings.queue: ">"}, free, BLOCK_MILLISECONDS
            )
        for _, entries in found.items() if isinstance(found, dict) else found or ():
            for entry_id, fields in _flat(entries):
                self._begin(redis, entry_id, fields)

    async def _claim(self, redis: Redis, most: int) -> int:
        """Take over what was handed out long ago and never settled; how many that were."""
        settings = self._settings
        idle = int(settings.reclaim_after * 1000)
        async with answering():
            answer = await redis.xautoclaim(
                settings.queue, settings.group, self._name, idle, self._claim_from, most
            )
        following, entries = answer[0], _flat(answer[1])
        self._claim_from = _text(following)
        if self._claim_from == "0-0":
            # All were looked through: not again at once.
            self._claim_at = time.monotonic() + settings.reclaim_after / 2
        for entry_id, fields in entries:
            if entry_id not in self._in_hand:
                await self._resume(redis, entry_id, fields)
        return len(entries)

    async def _resume(self, redis: Redis, entry_id: bytes, fields: Fields) -> None:
        """Go on with a message of a dead consumer, unless it may be what ends consumers."""
        settings = self._settings
        async with answering():
            found = await redis.xpending_range(
                settings.queue, settings.group, entry_id, entry_id, 1
            )
        times = int(found[0]["times_delivered"]) if found else 1
        if times <= settings.delivery_limit:
            self._begin(redis, entry_id, fields)
            return
        text = f"It was handed out {times - 1} times, and no consumer has settled it"
        await _RedisDelivery(redis, self._settings, self._name, entry_id, fields).bury(
            MessageRefused(POISON_STATUS, text)
        )

    def _begin(self, redis: Redis, entry_id: bytes, fields: Fields) -> None:
        delivery = _RedisDelivery(redis, self._settings, self._name, entry_id, fields)
        working = asyncio.create_task(self._settle(delivery))
        self._in_hand[entry_id] = working
        working.add_done_callback(lambda _: self._forget(entry_id))

    def _forget(self, entry_id: bytes) -> None:
        self._in_hand.pop(entry_id, None)
        self._ended.set()

    async def _settle(self, delivery: "_RedisDelivery") -> None:
        """One message, from here to its acknowledgement."""
        try:
            await settle(delivery, self._take if delivery.unreadable is None else delivery.refuse)
        except TROUBLES as error:
            # It is pending, and will be taken over like that of a dead consumer.
            log.warning("message_not_settled", message_id=delivery.message.id, error=str(error))


class _RedisDelivery:
    """An entry that Redis has handed out."""

    def __init__(
        self, redis: Redis, settings: MessageQueue, consumer: str, entry_id: bytes, fields: Fields
    ) -> None:
        self._redis = redis
        self._settings = settings
        self._consumer = consumer
        self._entry_id = entry_id
        self._fields = fields
        self.message = _bare_message(settings.queue, entry_id, fields)
        self.unreadable: MessageRefused | None = None
        try:
            self.message = _message(settings.queue, entry_id, fields)
        except ValueError as error:
            text = f"The fields of the entry cannot be read: {error}"
            self.unreadable = MessageRefused(UNREADABLE_STATUS, text)

    async def refuse(self, _: Message) -> None:
        """Take no task from an entry that cannot be read."""
        assert self.unreadable is not None  # noqa: S101 - asked before
        raise self.unreadable

    async def done(self) -> None:
        """Acknowledge, and take it out of the stream, which thus holds what is yet to be done."""
        await self._swap(None, {})

    async def bury(self, refused: MessageRefused) -> None:
        dead: dict[Any, Any] = {
            **self._fields,
            "x-error": str(refused),
            "x-status": str(refused.status),
            "x-queue": self._settings.queue,
            "x-entry": self._entry_id,
        }
        if reply := self.message.reply:
            body = {"status": "refused", "status_code": refused.status, "detail": str(refused)}
            await add_reply(self._redis, reply, to_json(body), f"refused/{self.message.id}")
        await self._swap(self._settings.dead_letter_queue, dead)

    async def keep(self) -> None:
        settings = self._settings
        async with answering():
            await self._redis.xclaim(
                settings.queue, settings.group, self._consumer, 0, [self._entry_id], justid=True
            )

    async def postpone(self) -> bool:
        # Under its present id: the new entry has another.
        await self._swap(self._settings.queue, {**self._fields, b"message_id": self.message.id})
        return True

    async def _swap(self, stream: str | None, fields: Mapping[Any, Any]) -> None:
        """Acknowledge the entry and, in the same transaction, add one to a stream."""
        settings = self._settings
        async with answering(), self._redis.pipeline(transaction=True) as pipe:
            if stream is not None:
                pipe.xadd(stream, dict(fields))
            pipe.xack(settings.queue, settings.group, self._entry_id)
            pipe.xdel(settings.queue, self._entry_id)
            await pipe.execute()


def _bare_message(stream: str, entry_id: bytes, fields: Fields) -> Message:
    """The entry as it is, with its place as its id."""
    return Message(body=fields.get(b"body", b""), id=f"{stream}:{_text(entry_id)}")


def _message(stream: str, entry_id: bytes, fields: Fields) -> Message:
    """What our side needs of the entry; without a ``message_id`` its place is its id.

    Raises:
        ValueError: it cannot be read.
    """
    known = {_text(name): _text(value) for name, value in fields.items() if name != b"body"}
    bare = _bare_message(stream, entry_id, fields)
    reply_to = known.get("reply_to", "")[:255]
    return replace(
        bare,
        id=known.get("message_id") or bare.id,
        content_type=known.get("content_type"),
        priority=_priority(known.get("priority", "")),
        reply=ReplyTo(to=reply_to, correlation_id=known.get("correlation_id", "")[:255] or None)
        if reply_to
        else None,
        traceparent=known.get("traceparent"),
    )


def _priority(text: str) -> int | None:
    """1 to 5, more is 5; None for anything else."""
    number = int(text[:_PRIORITY_DIGITS]) if text.isdecimal() else 0
    return min(number, MAX_PRIORITY) or None


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _flat(entries: Any) -> list[tuple[bytes, Fields]]:
    """Entries by id; newer protocols wrap them once more, and deleted ones have no fields."""
    if len(entries) == 1 and entries[0] and isinstance(entries[0][0], list | tuple):
        entries = entries[0]
    return [(each[0], each[1]) for each in entries if each and each[1] is not None]


async def add_reply(redis: Redis, reply: ReplyTo, body: bytes, message_id: str) -> None:
    """Add a reply to the stream where its receiver waits."""
    fields: dict[Any, Any] = {"body": body, "message_id": message_id}
    if reply.correlation_id is not None:
        fields["correlation_id"] = reply.correlation_id
    async with answering():
        await redis.xadd(reply.to, fields)
