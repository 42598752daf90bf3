"""Which broker tasks are taken from."""

from orchestrator.config import MessageQueue
from orchestrator.messaging import Take


async def ingest(settings: MessageQueue, take: Take) -> None:
    """Take tasks from the configured broker until cancelled; returns where none is to be."""
    if not settings.takes_tasks:
        return
    # Only the client of that broker is loaded.
    if settings.type == "rabbitmq":
        from orchestrator.messaging.rabbit import RabbitIngest  # noqa: PLC0415

        await RabbitIngest(settings, take).run()
    else:
        from orchestrator.messaging.redis_streams import RedisIngest  # noqa: PLC0415

        await RedisIngest(settings, take).run()
