"""Whatever is in the broker's queue, it becomes a message or is refused with words."""

from typing import Any, cast
from unittest.mock import Mock

from aio_pika import IncomingMessage
from aiormq.abc import DeliveredMessage
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from redis.asyncio import Redis

from orchestrator.config import MessageQueue
from orchestrator.messaging import Message
from orchestrator.messaging.rabbit import _RabbitDelivery
from orchestrator.messaging.redis_streams import UNREADABLE_STATUS, _RedisDelivery

QUEUE = MessageQueue(type="redis")
SHORT = st.text(max_size=63)
"""At most the 255 bytes of the protocol's short strings."""
NAMES = st.sampled_from(
    [b"body", b"message_id", b"priority", b"reply_to", b"correlation_id", b"traceparent"]
)
FIELDS = st.dictionaries(NAMES | st.binary(max_size=20), st.binary(max_size=300), max_size=8)


@given(fields=FIELDS)
def test_any_redis_entry_is_a_message_or_refused(fields: dict[bytes, bytes]) -> None:
    """Its id is its own or its place, and never empty."""
    delivery = _RedisDelivery(cast("Redis", Mock(Redis)), QUEUE, "c", b"1-0", fields)
    assert fields.get(b"body", b"") == delivery.message.body
    assert delivery.message.id
    assert delivery.message.priority in {None, 1, 2, 3, 4, 5}
    if delivery.unreadable is not None:
        assert UNREADABLE_STATUS == delivery.unreadable.status
        assert str(delivery.unreadable)


HEADER = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | SHORT
    | st.builds(bytearray, st.binary(max_size=50))
)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "message_id": SHORT,
        "content_type": SHORT,
        "correlation_id": SHORT,
        "reply_to": SHORT,
        "priority": st.integers(0, 255),
        "headers": st.dictionaries(
            SHORT | st.just("traceparent"), HEADER | st.lists(HEADER, max_size=3), max_size=4
        ),
    },
)


def handed_out(body: bytes, properties: dict[str, Any]) -> IncomingMessage:
    """A message as the client makes it of what came over the wire."""
    sent = Basic.Properties(**properties)
    wire = ContentHeader(body_size=len(body), properties=sent).marshal()
    header = ContentHeader()
    header.unmarshal(wire)
    deliver = Basic.Deliver("c", 1, False, "", "orchestrator.tasks")
    return IncomingMessage(DeliveredMessage(deliver, header, body, Mock()))


@settings(deadline=None, max_examples=60)
@given(body=st.binary(max_size=100), properties=PROPERTIES)
def test_any_rabbit_message_is_a_message(body: bytes, properties: dict[str, Any]) -> None:
    """Its id, its mark and where to answer are as they were sent."""
    queue = MessageQueue(type="rabbitmq")
    message: Message = _RabbitDelivery(handed_out(body, properties), Mock(), queue).message
    assert body == message.body
    assert message.id
    assert message.id == (properties.get("message_id") or message.id)
    assert message.priority in {None, 1, 2, 3, 4, 5}
    reply_to = properties.get("reply_to") or None
    assert reply_to == (message.reply and message.reply.to)
    assert message.traceparent is None or isinstance(message.traceparent, str)
