"""Whose tasks come by messages."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "pattern",
        "payload",
        "priority",
        "metadata",
        "timeout",
        "callback_url",
        "tenant",
        "capabilities",
        "batch",
        "plan",
    ]
)
BODIES = st.binary(max_size=60) | st.dictionaries(FIELDS | st.text(max_size=5), JSON).map(
    lambda body: json.dumps({"pattern": "nothing", **body}).encode()
)


@settings(deadline=None, max_examples=60)
@given(
    body=BODIES,
    name=st.text(max_size=300),
    priority=st.none() | st.integers(1, 5),
    kind=st.none() | st.just("application/json") | st.text(max_size=30),
    trace=st.none() | st.text(max_size=60),
)
def test_any_message_that_is_no_task_is_refused_in_words(
    body: bytes, name: str, priority: int | None, kind: str | None, trace: str | None
) -> None:
    """With what HTTP would answer; none is an error of ours, and none is kept for ever."""
    odd = Message(body, name, content_type=kind, priority=priority, traceparent=trace)

    async def take() -> None:
        await ingest.taking(services(None))(odd)

    with pytest.raises(MessageRefused) as caught:
        asyncio.run(take())
    assert caught.value.status in {400, 413, 415, 422}
    assert str(caught.value)
