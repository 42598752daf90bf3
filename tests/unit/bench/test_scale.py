"""What the scaling measurements make of their runs."""

import pytest

from bench.loads import CORES, Run
from bench.scale import check, costs_of, rates
from bench.topology import Topology

ONE, TWO = Topology(1, 1), Topology(2, 2)


def a_run(topology: Topology, seconds: float, api: float = 1.0, others: float = 0.0) -> Run:
    """1,000 tasks of a load, with so many CPU seconds of the API and as many of the engine."""
    cpu = {"api": api, "worker": 0.5, "engine": api}
    return Run("single", topology, 1000, seconds, cpu, others)


def test_a_row_is_the_median_of_its_rounds() -> None:
    """Each load and topology has one row, with the least and the most of its rounds."""
    [row] = rates([a_run(ONE, seconds) for seconds in (2.0, 4.0, 5.0)])
    assert (row["per_second"], row["least"], row["most"]) == (250, 200, 500)


def test_topologies_are_apart() -> None:
    """What two workers do is no part of what one does."""
    assert [ONE, TWO] == [row["topology"] for row in rates([a_run(ONE, 1.0), a_run(TWO, 1.0)])]


def test_costs_are_of_one_task() -> None:
    """The median over the rounds, kind by kind."""
    runs = [a_run(ONE, 1.0, api) for api in (1.0, 2.0, 9.0)] + [a_run(TWO, 1.0, 50.0)]
    found = costs_of(runs, "single", ONE)
    assert found == pytest.approx({"api": 0.002, "worker": 0.0005, "engine": 0.002})


def test_cores_are_those_that_others_leave() -> None:
    """What others compute meanwhile is not there for the product."""
    assert a_run(ONE, 4.0, others=2.0).cores == pytest.approx(CORES - 0.5)


def test_busy_is_the_share_of_the_cores_that_a_load_used() -> None:
    """5 CPU seconds in 4 seconds, on what the others left."""
    assert a_run(ONE, 4.0, api=2.25).busy == pytest.approx(5 / 4 / CORES)


def test_a_check_predicts_with_the_cores_and_processes_of_the_run() -> None:
    """Two workers and two APIs at costs of 2 ms a task, with half of the cores kept busy."""
    costs = {"api": 0.0005, "worker": 0.0005, "engine": 0.001}
    found = check(a_run(TWO, 1.0), costs, busy=0.5)
    assert found.predicted == pytest.approx(min(0.5 * CORES / 0.002, 2 / 0.0005))
    assert found.measured == 1000
