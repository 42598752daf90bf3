"""Which broker tasks are taken from."""

from orchestrator.config import MessageQueue
from orchestrator.messaging import Take
from orchestrator.messaging.rabbit import RabbitIngest
from orchestrator.messaging.redis_streams import RedisIngest


async def ingest(settings: MessageQueue, take: Take) -> None:
    """Take tasks from the configured broker until cancelled; returns where none is to be."""
    if not settings.takes_tasks:
        return
    kind = RabbitIngest if settings.type == "rabbitmq" else RedisIngest
    await kind(settings, take).run()
