"""What is asked of an aggregate: which tasks, under which ids, by which condition."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.aggregates import (
    AggregateRequest,
    Aggregation,
    FanOut,
    Simple,
    aggregate_id_of,
    aggregate_workflow_id,
    fan_out_of,
    joined_ids,
    redrive_of,
)
from orchestrator.batches import Batch, item_id
from orchestrator.models import TaskRequest

REQUEST = TaskRequest(pattern="read", payload={})


def test_tasks_have_their_positions() -> None:
    """Named ones first, each once; then those that the aggregate starts."""
    asked = Aggregation(task_ids=("b", "a", "b"), tasks=(REQUEST, REQUEST))
    fan_out = fan_out_of(asked, "aggregate/1", "run")
    assert fan_out is not None
    assert 2 == fan_out.total
    assert ("b", "a", item_id(fan_out.batch_id, 0), item_id(fan_out.batch_id, 1)) == joined_ids(
        asked, fan_out
    )


def test_another_run_under_the_same_id_starts_tasks_of_its_own() -> None:
    """And one that carries on does not."""
    asked = Aggregation(tasks=(REQUEST,))
    first, second = (fan_out_of(asked, "nightly", run) for run in ("1", "2"))
    assert first != second
    assert first == fan_out_of(asked, "nightly", "1")
    assert first == fan_out_of(redrive_of(asked, first), "nightly", "2")
    assert None is fan_out_of(Aggregation(task_ids=("a",)), "nightly", "1")


def test_a_routed_batch_counts_as_its_items() -> None:
    """As do requests that are yet to be routed."""
    routed = Aggregation(batch=Batch(items=("{}", "{}"), chosen=(0, 0)))
    given_by_hand = Aggregation(batch=Batch(tasks=(REQUEST,)))
    assert (2, 1) == (routed.to_start, given_by_hand.to_start)


def test_a_redrive_joins_the_same_tasks() -> None:
    """Without starting any."""
    asked = Aggregation(task_ids=("a",), tasks=(REQUEST,), join=Simple.ANY)
    fan_out = FanOut(batch_id="b", total=1)
    again = redrive_of(asked, fan_out)
    assert (True, 0, Simple.ANY) == (again.redrive, again.to_start, again.join)
    assert joined_ids(asked, fan_out) == joined_ids(again, again.fan_out)


def test_an_aggregate_has_the_workflow_id_that_its_starter_gave() -> None:
    """The API's carry a prefix."""
    assert ["7", "nightly"] == [
        aggregate_id_of(each) for each in (aggregate_workflow_id("7"), "nightly")
    ]


KINDS = 'Input should be "all", "any", {"at_least": k} or {"max_failed_percent": p}'


@pytest.mark.parametrize(
    ("join", "mistake"),
    [
        ("some", (("join",), KINDS)),
        ({}, (("join",), KINDS)),
        (None, (("join",), KINDS)),
        (
            {"at_least": 0},
            (("join", "at_least", "at_least"), "Input should be greater than or equal to 1"),
        ),
        (
            {"max_failed_percent": 101},
            (
                ("join", "max_failed_percent", "max_failed_percent"),
                "Input should be less than or equal to 100",
            ),
        ),
    ],
)
def test_a_condition_that_cannot_be_is_told_once(join: Any, mistake: tuple[Any, str]) -> None:
    """In the words of the condition that was meant, or of all that there are."""
    with pytest.raises(ValidationError) as caught:
        AggregateRequest.model_validate({"task_ids": ["a"], "join": join})
    assert [mistake] == [(each["loc"], each["msg"]) for each in caught.value.errors()]
