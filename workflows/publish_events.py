"""PublishEvents: events and replies that the broker could not take, sent when it can."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.publish_events import EventPublisher
    from orchestrator.messaging.events import PUBLISH_WORKFLOW, News
    from workflows import options


@workflow.defn(name=PUBLISH_WORKFLOW)
class PublishEvents:
    """Try until the broker has confirmed all."""

    @workflow.run
    async def run(self, news: News) -> None:
        """Send them, for as long as a month."""
        await workflow.execute_activity_method(
            EventPublisher.publish_events,
            news,
            schedule_to_close_timeout=options.LONGEST,
            start_to_close_timeout=options.PUBLISH_TIMEOUT,
            retry_policy=options.PUBLISH_RETRY,
        )
