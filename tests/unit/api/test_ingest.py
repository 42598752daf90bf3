"""Whose tasks come by messages."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api import ingest
from api.dependencies import Services
from api.submission import Wish
from orchestrator.config import MessageQueue, Settings
from orchestrator.errors import MessageRefused
from orchestrator.messaging import Message
from orchestrator.routing import Routes

RULE = {"pattern": "work", "target_agent": "a", "endpoint": "http://127.0.0.1:9/work"}


def services(tenant: str | None) -> Services:
    """As much of them as a message needs that comes for this tenant."""
    settings = Settings.model_validate({"routing_rules": (RULE,)}).model_copy(
        update={"message_queue": MessageQueue(tenant=tenant)}
    )
    return cast("Services", SimpleNamespace(settings=settings, routes=Routes(settings)))


def message(**body: Any) -> Message:
    """A task as a message."""
    text = json.dumps({"pattern": "work", "payload": {}, **body})
    return Message(id="m1", body=text.encode(), content_type="application/json")


@pytest.mark.parametrize(
    ("bound", "said", "expected"),
    [
        (None, {}, "default"),
        (None, {"tenant": "acme"}, "acme"),
        ("acme", {}, "acme"),
        ("acme", {"tenant": "acme"}, "acme"),
    ],
)
async def test_a_task_is_the_queues_tenants(
    monkeypatch: pytest.MonkeyPatch, bound: str | None, said: dict[str, str], expected: str
) -> None:
    """Where the queue is nobody's, it is whose the message says."""
    wishes = list[Wish]()

    async def submit(_: Services, wish: Wish) -> tuple[Any, dict[str, str]]:
        wishes.append(wish)
        status = SimpleNamespace(task_id="t", agent="a")
        return SimpleNamespace(created=True, status=status), {}

    monkeypatch.setattr(ingest, "submit", submit)
    await ingest.taking(services(bound))(message(**said))
    assert [expected] == [each.asked.tenant for each in wishes]


async def test_another_tenants_is_a_dead_letter() -> None:
    """It can never be a task of that queue."""
    with pytest.raises(MessageRefused, match="globex") as caught:
        await ingest.taking(services("acme"))(message(tenant="globex"))
    assert 403 == caught.value.status
