"""The arithmetic of the scaling model."""

import math

import pytest

from bench.model import Prediction, Resources, grouped, mixed, predict

COSTS = {"api": 0.0002, "worker": 0.0003, "engine": 0.0005}


def bound(per_second: float, by: str) -> Prediction:
    """So much but for rounding."""
    return Prediction(pytest.approx(per_second), by)  # type: ignore[arg-type]  # compares like it


def test_cores_bound_what_computes_most_of_the_time() -> None:
    """The cores are shared by all kinds, so their costs add up."""
    found = predict(COSTS, Resources(cores=2, processes={}))
    assert found == bound(2000, "cores")


def test_a_python_process_computes_on_one_core() -> None:
    """With cores to spare, the kind of process that costs most is the next bound."""
    found = predict(COSTS, Resources(cores=16, processes={"api": 4}))
    assert found == bound(1 / 0.0003, "worker")


def test_more_processes_of_the_kind_that_bounds_raise_the_bound() -> None:
    """What a kind can do is in proportion to its processes."""
    found = predict(COSTS, Resources(cores=16, processes={"api": 4, "worker": 3}))
    assert found == bound(3 / 0.0003, "worker")


def test_the_engine_is_no_single_core() -> None:
    """An engine that costs most bounds by the cores alone."""
    found = predict({"engine": 0.01}, Resources(cores=4, processes={}))
    assert found == bound(400, "cores")


def test_a_slow_agent_bounds_by_its_connections() -> None:
    """Ten calls of 50 ms each at a time are 200 a second, whatever computes."""
    found = predict(COSTS, Resources(2, {}, calls_at_once=10, call_seconds=0.05))
    assert found == bound(200, "connections")


def test_nothing_bounds_what_costs_nothing() -> None:
    """A resource that a task does not use is no bound."""
    assert predict({}, Resources(2, {})).per_second == math.inf


def test_a_mix_costs_the_average_of_its_loads() -> None:
    """Each load counts by its share of the tasks, kind by kind."""
    costs = {"single": {"api": 0.008, "worker": 0.002}, "batch": {"worker": 0.0002}}
    found = mixed({"single": 0.25, "batch": 0.75}, costs)
    assert found == pytest.approx({"api": 0.002, "worker": 0.00065})


def test_what_a_group_costs_is_shared_by_its_tasks() -> None:
    """Costs at sizes 10 and 50 tell 20 ms a group and 1 ms a task, which is 1.8 ms at size 25."""
    found = grouped((10, {"api": 0.003}), (50, {"api": 0.0014}), 25)
    assert found == pytest.approx({"api": 0.0018})
