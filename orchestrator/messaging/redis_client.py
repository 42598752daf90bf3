"""The client of the broker Redis, from the configuration."""

import asyncio

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from orchestrator.config import MessageQueue
from orchestrator.errors import BrokerUnavailable
from orchestrator.messaging import REDIS_PORT

ANSWER_SECONDS = 10.0
"""How long an answer may take; longer than a read blocks for."""
TROUBLES = (RedisError, OSError, TimeoutError)
"""What the client raises when the broker is not there, or refuses."""


def redis_client(settings: MessageQueue) -> Redis:
    """A client with a pool of its own, which connects when it is used.

    It waits for an answer as long as that takes: all that it is asked is to be within
    ``answering``. A timeout of its own would be an asyncio.wait_for, which in Python 3.11 swallows
    a cancellation that comes as the wait ends.
    """
    if settings.url is not None:
        return Redis.from_url(
            settings.url.get_secret_value(),
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=ANSWER_SECONDS,
        )
    return Redis(
        host=settings.host,
        port=settings.port or REDIS_PORT,
        db=settings.database,
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password else None,
        ssl=settings.tls,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=ANSWER_SECONDS,
    )


def answering() -> asyncio.Timeout:
    """Bounds what the broker is asked in the block; raises TimeoutError, one of the TROUBLES."""
    return asyncio.timeout(ANSWER_SECONDS)


def unavailable(error: BaseException) -> BrokerUnavailable:
    """The same trouble in our words."""
    return BrokerUnavailable(f"Redis: {str(error) or type(error).__name__}")
