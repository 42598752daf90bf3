"""``message_queue``: what may be said, and what is told of mistakes."""

from pathlib import Path

import pytest

from orchestrator.config import MessageQueue, Settings
from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError


def loaded(tmp_path: Path, text: str) -> MessageQueue:
    """The block of a file."""
    path = tmp_path / "config.yaml"
    path.write_text(f"message_queue: {text}\n")
    settings: Settings = load(path, {})
    return settings.message_queue


def test_type_host_and_port_are_enough(tmp_path: Path) -> None:
    """Then tasks are taken, and events sent."""
    found = loaded(tmp_path, "{type: rabbitmq, host: localhost, port: 5672}")
    assert (True, True) == (found.takes_tasks, found.sends_events)


def test_without_a_broker_nothing_is_taken_or_sent(tmp_path: Path) -> None:
    """Whatever else the block says."""
    found = loaded(tmp_path, "{type: none, ingest: true, events: true}")
    assert (False, False) == (found.takes_tasks, found.sends_events)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{type: kafka}", "allowed: none, rabbitmq, redis"),
        ("{type: redis, url: 'amqp://guest:s3cret@host'}", "redis://host:port"),
        ("{type: rabbitmq, url: 'redis://host'}", "amqp://host:port"),
        ("{type: rabbitmq, queue: a, dead_letter_queue: a}", "have to be two"),
        ("{type: rabbitmq, queue: 'a b'}", "queue"),
        ("{type: rabbitmq, prefetch: 0}", "prefetch"),
        ("{type: rabbitmq, prefetsch: 10}", "did you mean prefetch?"),
    ],
)
def test_mistakes_are_told_without_secrets(tmp_path: Path, text: str, words: str) -> None:
    """Each names the key and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)
