"""The AsyncAPI document: whole, and true of what the product takes and sends."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from orchestrator.config import MessageQueue, Settings
from orchestrator.messaging.asyncapi import document
from orchestrator.messaging.events import Event, EventType, source_of


def made(**queue: Any) -> dict[str, Any]:
    """The document of a configuration."""
    return document(Settings(message_queue=MessageQueue(**queue)))


def references(value: Any) -> Iterator[str]:
    """All ``$ref`` in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def found(whole: Any, reference: str) -> Any:
    """What a reference points at."""
    for part in reference.removeprefix("#/").split("/"):
        whole = whole[part]
    return whole


@pytest.mark.parametrize("kind", ["rabbitmq", "redis", "none"])
def test_every_reference_leads_somewhere(kind: str) -> None:
    """For each kind of broker."""
    whole = made(type=kind)
    assert all(found(whole, reference) for reference in set(references(whole)))


def test_addresses_are_those_of_the_configuration() -> None:
    """Queues, and the exchange by its binding."""
    channels = made(type="rabbitmq", queue="in", events_exchange="out")["channels"]
    assert "in" == channels["tasks"]["address"]
    assert "out" == channels["events"]["bindings"]["amqp"]["exchange"]["name"]


def test_what_is_off_is_not_described() -> None:
    """No events, or no tasks, or neither."""
    assert "events" not in made(type="redis", events=False)["channels"]
    assert {"events"} == set(made(type="redis", ingest=False)["channels"])
    assert {} == made()["channels"]


@pytest.mark.parametrize("kind", EventType)
def test_events_are_as_described(kind: EventType) -> None:
    """The document that is sent fits the schema that is served."""
    whole = made(type="redis")
    schema = {
        **whole["components"]["messages"][kind.value]["payload"],
        "components": whole["components"],
    }
    now = datetime(2026, 1, 2, tzinfo=UTC)
    event = Event.of_task(kind, "id", "run", "reader", now, {}, traceparent="00-1-2-00")
    sent = event.document(source_of("orchestration_agent"))
    assert [] == [error.message for error in Draft202012Validator(schema).iter_errors(sent)]
    sent["type"] = "other"
    assert not Draft202012Validator(schema).is_valid(sent)


def test_a_url_with_its_password_is_not_shown() -> None:
    """The server is then named by its key only."""
    assert "s3cret" not in str(made(type="redis", url="redis://:s3cret@host/0"))
