"""Addresses of agents: what they name, what is wrong with them, and where their passwords stay."""

import subprocess
import sys
from typing import Any

import pytest

from orchestrator.config import Settings
from orchestrator.config_problems import found_words
from orchestrator.endpoints import FORMS, QueueAddress, checked, joined, origin, path_of
from orchestrator.models import TaskRequest
from orchestrator.routing import Routes
from orchestrator.transports.by_scheme import TRANSPORTS


def settings(endpoint: str, **agents: Any) -> Settings:
    """One rule with that endpoint."""
    rule = {"pattern": "work", "target_agent": "reader", "endpoint": endpoint}
    return Settings.model_validate({"routing_rules": [rule], "agents": agents}, strict=False)


@pytest.mark.parametrize(
    ("url", "vhost", "queue", "port"),
    [
        ("amqp://h/work", "/", "work", 5672),
        ("amqps://h/work", "/", "work", 5671),
        ("amqp://h//work", "/", "work", 5672),
        ("amqp://h:1/%2F/a%2Fb", "/", "a/b", 1),
        ("amqp://u:p%40@h/prod/work", "prod", "work", 5672),
    ],
)
def test_a_queue_is_named_with_or_without_its_vhost(
    url: str, vhost: str, queue: str, port: int
) -> None:
    """A slash within a name is %2F."""
    found = QueueAddress.of(url)
    assert (vhost, queue, port) == (found.vhost, found.queue, found.port)
    assert url == checked(url, login=True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("amq://h/q", "amqp://host/queue"),
        ("amqp:///q", "URL with a host"),
        ("amqp://h", "amqp://host/vhost/queue"),
        ("amqp://h/q/", "amqp://host/vhost/queue"),
        ("amqp://h/a/b/c", "a queue, or a vhost and a queue"),
        ("amqp://u@h/q", "both user and password"),
        ("amqp://u:s3cret/x@h/q", "write / as %2F"),
        ("amqp://u:s3cret#x@h/q", "# as %23"),
        ("amqp://h/q?heartbeat=1", "without query"),
        ("amqp://h:99999/q", "a port from 0 to 65535"),
        (f"amqp://h/{'q' * 256}", "at most 255 bytes"),
        ("http://u:s3cret@h", "by the agent's headers"),
    ],
)
def test_a_wrong_address_is_told_without_its_password(url: str, words: str) -> None:
    """What is allowed, and how to write it."""
    with pytest.raises(ValueError, match=r"a URL|queue|bytes|port") as raised:
        checked(url, login=True)
    assert words in str(raised.value)
    assert "s3cret" not in str(raised.value) + found_words(url)


def test_the_password_stays_in_the_configuration() -> None:
    """Neither the plan of a task nor what is shown of the settings has it."""
    found = settings("amqp://user:s3cret@h/work")
    plan = Routes(found).plan(TaskRequest(pattern="work", payload={}))
    assert "s3cret" not in found.model_dump_json() + repr(found) + plan.model_dump_json()
    assert ["amqp://h/work"] == [each.url for each in found.agents["reader"].instances]
    assert "user:s3cret" == found.logins["amqp://h/work"].get_secret_value()


def test_an_instance_at_run_time_brings_no_password() -> None:
    """Orders are kept in the fleet's history."""
    with pytest.raises(ValueError, match="they belong in the configuration"):
        checked("amqp://user:word@h/work")


def test_the_path_of_a_rule_goes_along_with_the_message() -> None:
    """So agents of both kinds may stand in for each other."""
    assert "amqp://h/work#/ingest" == joined("amqp://h/work", "/ingest")
    assert "amqp://h/work" == joined("amqp://h/work", "/") == origin("amqp://h/work#/ingest")
    assert ("/", "/ingest") == (path_of("amqp://h/work"), path_of("http://h/ingest"))
    assert "http://h/ingest" == joined("http://h", "/ingest")


def test_each_scheme_has_a_transport() -> None:
    """HTTP's is the one of all others."""
    assert set(FORMS) == {"http", "https", *TRANSPORTS}


@pytest.mark.parametrize("client", ["aio_pika", "redis"])
def test_a_brokers_client_is_loaded_for_those_who_use_it(client: str) -> None:
    """It costs the others neither time nor memory."""
    loaded = "import sys, worker, api.command, orchestrator.shared_parts"
    code = f"{loaded}; sys.exit('{client}' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
