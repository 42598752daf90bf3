"""Send events and replies to the broker, each confirmed as far as the broker can."""

from typing import Protocol

from orchestrator.config import Settings
from orchestrator.messaging.events import News


class Publisher(Protocol):
    """Sends to one broker."""

    async def publish(self, news: News) -> None:
        """Send all; on BrokerUnavailable some may have been sent."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


def publisher_of(settings: Settings) -> Publisher | None:
    """The publisher of the configured broker; None without one.

    Only the client of that broker is loaded: each takes its time and some megabytes.
    """
    if settings.message_queue.type == "none":
        return None
    if settings.message_queue.type == "rabbitmq":
        from orchestrator.messaging.rabbit_publisher import RabbitPublisher  # noqa: PLC0415

        return RabbitPublisher(settings)
    from orchestrator.messaging.redis_publisher import RedisPublisher  # noqa: PLC0415

    return RedisPublisher(settings)
