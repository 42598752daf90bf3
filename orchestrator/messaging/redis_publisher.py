"""Send events and replies to Redis."""

from contextlib import suppress

from pydantic_core import to_json

from orchestrator.config import Settings
from orchestrator.messaging import redis_client
from orchestrator.messaging.events import News, source_of
from orchestrator.messaging.redis_streams import add_reply


class RedisPublisher:
    """Events to channels, which keep nothing; replies to the streams where they are waited for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.message_queue
        self._source = source_of(settings.agent.name)
        self._redis = redis_client.redis_client(self._settings)

    async def publish(self, news: News) -> None:
        """Send all; Redis tells nobody whether somebody has heard an event."""
        try:
            if news.events:
                async with (
                    redis_client.answering(),
                    self._redis.pipeline(transaction=False) as pipe,
                ):
                    for event in news.events:
                        channel = f"{self._settings.events_exchange}.{event.routing_key}"
                        pipe.publish(channel, to_json(event.document(self._source)))
                    await pipe.execute()
            for each in news.answers:
                await add_reply(self._redis, each.reply, to_json(each.body), each.id)
        except redis_client.TROUBLES as error:
            raise redis_client.unavailable(error) from None

    async def close(self) -> None:
        """Close the connections."""
        with suppress(*redis_client.TROUBLES):
            await self._redis.aclose()
