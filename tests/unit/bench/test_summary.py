"""The figures that a comparison tells, from what its rounds took."""

from typing import Any

from bench.summary import best_peer, summary


def entry(tasks: int, seconds: float, **changes: Any) -> dict[str, Any]:
    """What one round of a mode took."""
    return {
        "tasks": tasks,
        "seconds": seconds,
        "submit_ms": [1.0],
        "dispatch_ms": [],
        "loaded_ms": None,
        "end_ms": [2.0],
        "cpu": {"driver": 0.5},
        "memory": {"driver": 1_000_000},
        "events": None,
        "history_bytes": None,
        "database_bytes": 100 * tasks,
        "durability": "none",
        "versions": "none",
        **changes,
    }


def rows(**rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows of modes."""
    return dict(summary(rounds, {}, {})["modes"])


def test_rates_are_the_median_of_the_rounds_with_their_spread() -> None:
    """Not of all tasks together."""
    row = rows(queued=[entry(100, 1), entry(100, 4), entry(100, 2)])["queued"]
    assert {"median": 50.0, "min": 25.0, "max": 100.0} == row["per_second"]


def test_percentiles_are_values_that_were_seen() -> None:
    """Of all rounds together, by the nearest rank."""
    values = [float(number) for number in range(1, 101)]
    row = rows(queued=[entry(1, 1, submit_ms=values[:50]), entry(1, 1, submit_ms=values[50:])])
    assert {"p50": 50.0, "p95": 95.0, "p99": 99.0} == row["queued"]["submit_ms"]


def test_costs_are_those_of_a_task() -> None:
    """CPU in milliseconds, the database in bytes; what is not known is not told."""
    row = rows(queued=[entry(100, 1)])["queued"]
    assert ({"driver": 5.0}, 100, None) == (row["cpu_ms"], row["database_bytes"], row["events"])


def test_the_best_peer_takes_single_tasks() -> None:
    """A peer's mode that hands in all at once is compared to batches only."""
    found = rows(
        restate=[entry(100, 1)], dbos=[entry(100, 2)], **{"pgqueuer many": [entry(100, 0.1)]}
    )
    assert "restate" == best_peer(found)


def test_the_way_to_the_agent_is_compared_alone_and_under_load() -> None:
    """By the median of single tasks, and by the median of the rounds' means."""
    told = summary(
        {
            "queued": [entry(1, 1, dispatch_ms=[10.0], loaded_ms=each) for each in (100, 900, 200)],
            "textbook": [entry(1, 1, dispatch_ms=[40.0], loaded_ms=1000.0)],
        },
        {},
        {},
    )
    ratios = {each["what"].partition(":")[0]: each["ratio"] for each in told["ratios"]}
    assert {
        "tasks/s": 1.0,
        "dispatch p50, one at a time": 0.25,
        "dispatch mean, under load": 0.2,
    } == ratios


def test_ratios_of_what_was_not_measured_are_left_out() -> None:
    """So any choice of modes can be told of."""
    told = summary({"queued": [entry(100, 1)], "textbook": [entry(100, 4)]}, {}, {})
    assert [(4.0, "at least 2.5")] == [(each["ratio"], each["goal"]) for each in told["ratios"]]
