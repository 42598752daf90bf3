"""What tasks can be found by."""

from typing import Any

import pytest
from temporalio.api.common.v1 import Payload, SearchAttributes
from temporalio.common import SearchAttributeKey

from orchestrator.engine import search_attributes
from orchestrator.models import Task
from tests.support.plans import plan


def test_a_tasks_attributes() -> None:
    """Agent, pattern, priority and tenant, as planned."""
    task = Task(pattern="read", payload={}, tenant="team")
    found = search_attributes.of_task(task, plan(priority=5))
    expected = {
        "OrchestratorAgent": "reader",
        "OrchestratorPattern": "read",
        "OrchestratorPriority": 5,
        "OrchestratorTenant": "team",
    }
    assert expected == {pair.key.name: pair.value for pair in found.search_attributes}


def test_a_task_without_a_pattern_has_no_pattern() -> None:
    """An attribute that says nothing is not set."""
    task = Task(payload={}, capabilities=("pdf",))
    found = search_attributes.of_task(task, plan())
    assert search_attributes.PATTERN not in [pair.key for pair in found.search_attributes]


def test_a_dead_letters_attributes() -> None:
    """The task's, and what it failed of."""
    task = Task(pattern="read", payload={})
    found = search_attributes.of_dead_letter(task, plan(), "AgentFailed")
    assert "AgentFailed" == found.get(search_attributes.ERROR_TYPE)
    assert "read" == found.get(search_attributes.PATTERN)


def test_the_command_that_registers_them() -> None:
    """An operator can paste it."""
    expected = (
        "temporal operator search-attribute create --namespace team "
        "--name OrchestratorAgent --type Keyword --name OrchestratorPattern --type Keyword "
        "--name OrchestratorPriority --type Int --name OrchestratorTenant --type Keyword "
        "--name OrchestratorErrorType --type Keyword --name OrchestratorBatch --type Keyword"
    )
    assert expected == search_attributes.registration_command("team")


@pytest.mark.parametrize(
    ("told", "key", "expected"),
    [
        (b'"reader"', search_attributes.AGENT, "reader"),
        (b'["reader"]', search_attributes.AGENT, "reader"),
        (b"3", search_attributes.PRIORITY, 3),
        (b'["reader","writer"]', search_attributes.AGENT, None),
        (b"3", search_attributes.AGENT, None),
        (b"true", search_attributes.PRIORITY, None),
        (b"null", search_attributes.AGENT, None),
        (b"", search_attributes.AGENT, None),
        (None, search_attributes.AGENT, None),
    ],
)
def test_a_value_is_read_from_what_the_engine_tells(
    told: bytes | None, key: SearchAttributeKey[Any], expected: object
) -> None:
    """What is not there, or of another type, is none."""
    told_all = {"Other": Payload(data=b'"other"')}
    if told is not None:
        told_all[key.name] = Payload(data=told)
    found = search_attributes.value_of(SearchAttributes(indexed_fields=told_all), key)
    assert (expected, type(expected)) == (found, type(found))
