"""What a task tells of its end never changes that end."""

from typing import Any

import pytest
from temporalio.client import Client

from activities.publish_events import EventPublisher
from orchestrator.messaging.events import News
from orchestrator.messaging.outbox import Outbox
from orchestrator.models import AgentCall, AgentReply, ReplyTo
from tests.support.plans import task
from tests.workflows.stage import Calls, hosted, reply, result_of, start
from workflows import telling

LARGE = "x" * 1_970_000
"""Fits in a task's outcome; in its status it is too large."""

TOO_MUCH = {"more": "x" * 100_000}


class Told:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.news: list[News] = []

    async def keep(self, news: News) -> None:
        """Take it."""
        self.news.append(news)


@pytest.fixture
def told() -> Told:
    """What has been told."""
    return Told()


async def run(client: Client, told: Told, *, sandboxed: bool = True) -> Any:
    """The outcome of a task with a large result, for which somebody waits."""

    async def large(_: AgentCall) -> AgentReply:
        return reply(LARGE)

    publisher = EventPublisher(Outbox(None, told.keep), None)
    given = task(events=True).model_copy(update={"reply": ReplyTo(to="answers")})
    calls = Calls(behaviour=large)
    async with hosted(client, calls, sandboxed=sandboxed, events=publisher):
        return await result_of(await start(client, given))


async def test_a_reply_leaves_out_a_result_that_is_too_large(client: Client, told: Told) -> None:
    """The task completes, and who waits is told so."""
    outcome = await run(client, told)
    assert LARGE == outcome["result"]
    [answer] = [each for news in told.news for each in news.answers]
    assert ("completed", None, True) == (
        answer.body["status"],
        answer.body["result"],
        answer.body["result_left_out"],
    )


async def test_news_that_cannot_be_sent_change_nothing(
    client: Client, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are lost; the task completes all the same."""
    monkeypatch.setattr(
        telling, "data_of", lambda status: status.model_dump(mode="json") | TOO_MUCH
    )
    outcome = await run(client, told, sandboxed=False)
    assert LARGE == outcome["result"]
    assert [["task.queued"]] == [[each.type for each in news.events] for news in told.news]
