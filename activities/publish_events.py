"""Send events and replies: at once from where something happens, or until the broker has them."""

from temporalio import activity
from temporalio.exceptions import ApplicationError

from orchestrator.errors import BrokerUnavailable
from orchestrator.messaging.events import News
from orchestrator.messaging.outbox import Outbox
from orchestrator.messaging.publishers import Publisher


class EventPublisher:
    """The activities with what they send by."""

    def __init__(self, outbox: Outbox, publisher: Publisher | None) -> None:
        self._outbox = outbox
        self._publisher = publisher

    @activity.defn
    async def tell(self, news: News) -> None:
        """Send, or have the engine keep it for ``publish_events``: short either way."""
        await self._outbox.send(news)

    @activity.defn
    async def publish_events(self, news: News) -> None:
        """Send, or fail for the engine to try again later.

        Raises:
            ApplicationError: the broker has not confirmed it, or this worker has none.
        """
        if self._publisher is None:
            raise ApplicationError("This worker has no message_queue", type="NoBroker")
        try:
            await self._publisher.publish(news)
        except BrokerUnavailable as error:
            raise ApplicationError(str(error), type=BrokerUnavailable.__name__) from None
