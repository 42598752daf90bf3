"""Joining: when a condition holds, and what is made of the results."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.aggregate_status import ResultItem
from orchestrator.aggregates import (
    AggregatePolicy,
    AtLeast,
    Counts,
    Joined,
    JoinReport,
    MaxFailedPercent,
    Merge,
    OnFailure,
    OnMet,
    Simple,
)
from orchestrator.joining import (
    MAX_CONFLICT_CHARACTERS,
    MAX_CONFLICTS,
    Verdict,
    cancels_rest,
    gathered,
    is_over,
    join,
    merged,
    shortfall,
    verdict,
)
from orchestrator.models import TaskState

COMPLETED, FAILED, CANCELLED = TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


def outcome(position: int, state: TaskState = COMPLETED, **fields: Any) -> Joined:
    """How one task ended."""
    return Joined(position=position, task_id=f"task-{position}", state=state, **fields)


def by_position(*outcomes: Joined) -> dict[int, Joined]:
    """What join() takes."""
    return {each.position: each for each in outcomes}


def counts(completed: int = 0, failed: int = 0, cancelled: int = 0, total: int = 10) -> Counts:
    """Of ten tasks, unless told otherwise."""
    return Counts(total=total, completed=completed, failed=failed, cancelled=cancelled)


JOINS = st.one_of(
    st.sampled_from(Simple),
    st.builds(AtLeast, at_least=st.integers(1, 14)),
    st.builds(
        MaxFailedPercent,
        max_failed_percent=st.one_of(
            st.integers(0, 100).map(float), st.floats(0, 100), st.sampled_from([0.1, 33.3, 12.5])
        ),
    ),
)
POLICIES = st.builds(
    AggregatePolicy,
    join=JOINS,
    on_met=st.sampled_from(OnMet),
    on_failure=st.sampled_from(OnFailure),
    merge=st.sampled_from(Merge),
)
ENDS = st.lists(st.sampled_from([None, COMPLETED, FAILED, CANCELLED]), min_size=1, max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "b", "/", "~"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def holds(policy: AggregatePolicy, ends: list[TaskState | None]) -> bool:
    """The condition as a reader of the documentation would check it on a list of states."""
    good = [end for end in ends if end is COMPLETED]
    bad = [end for end in ends if end in {FAILED, CANCELLED}]
    everybody = None not in ends
    if policy.join == "any":
        return good != []
    if isinstance(policy.join, AtLeast):
        return len(good) >= policy.join.at_least
    if isinstance(policy.join, MaxFailedPercent):
        share = Fraction(100 * len(bad), len(ends))
        return everybody and share <= Fraction(repr(policy.join.max_failed_percent))
    strict = policy.on_failure is OnFailure.CANCEL_REST
    return everybody and not (strict and bad)


def futures(ends: list[TaskState | None]) -> list[list[TaskState | None]]:
    """The two extreme ways in which it may go on."""
    return [[end or last for end in ends] for last in (COMPLETED, FAILED)]


@given(ENDS, POLICIES, st.randoms(use_true_random=False))
def test_join_agrees_with_a_naive_model(
    ends: list[TaskState | None], policy: AggregatePolicy, random: Any
) -> None:
    """Whatever ended, in whichever order it was told."""
    told = [
        outcome(place, end, result=place, agent="reader", at=NOON)
        for place, end in enumerate(ends)
        if end is not None
    ]
    random.shuffle(told)
    joined = join(by_position(*told), policy, len(ends))
    good = [place for place, end in enumerate(ends) if end is COMPLETED]
    bad = [place for place, end in enumerate(ends) if end in {FAILED, CANCELLED}]
    assert (len(good), ends.count(FAILED), ends.count(CANCELLED), ends.count(None)) == (
        joined.counts.completed,
        joined.counts.failed,
        joined.counts.cancelled,
        joined.counts.pending,
    )
    assert [f"task-{place}" for place in good] == [each.task_id for each in joined.results]
    assert good == [each.result for each in joined.results]
    assert [f"task-{place}" for place in bad] == [each.task_id for each in joined.errors]
    assert holds(policy, ends) == (joined.verdict is Verdict.MET)
    hopeless = not any(holds(policy, future) for future in futures(ends))
    assert hopeless == (joined.verdict is Verdict.IMPOSSIBLE)


@given(ENDS, POLICIES)
def test_a_verdict_once_given_stays(ends: list[TaskState | None], policy: AggregatePolicy) -> None:
    """However the open tasks end."""
    total = len(ends)
    now = verdict(policy, Counts(total=total).with_ends(end for end in ends if end))
    for future in futures(ends):
        later = verdict(policy, Counts(total=total).with_ends(end for end in future if end))
        assert later is not Verdict.OPEN
        assert now in {Verdict.OPEN, later}


@given(ENDS, POLICIES)
def test_nothing_open_is_left_to_decide(
    ends: list[TaskState | None], policy: AggregatePolicy
) -> None:
    """A join is over when all have ended, and cancels only what is open."""
    now = Counts(total=len(ends)).with_ends(end for end in ends if end)
    assert not cancels_rest(policy, now) or (is_over(policy, now) and None in ends)
    assert is_over(policy, now) or None in ends


def naive_merge(documents: list[Any]) -> dict[str, Any]:
    """Leaves by path: the first that claims a path, or a path above or below it, keeps it."""
    kept: dict[str, Any] = {}

    def claim(path: str, value: Any) -> None:
        if any(path == at or path.startswith(f"{at}/") for at in kept if kept[at] != {}):
            return
        if isinstance(value, dict):
            if not any(at == path or at.startswith(f"{path}/") for at in kept):
                kept[path] = {}
            for key, inner in value.items():
                kept.pop(path, None)
                claim(f"{path}/{key.replace('~', '~0').replace('/', '~1')}", inner)
        elif not any(at == path or at.startswith(f"{path}/") for at in kept):
            kept[path] = value

    for document in documents:
        claim("", document)
    return kept


def leaves(document: Any, path: str = "") -> dict[str, Any]:
    """The values of a document that are no objects with content, by JSON pointer."""
    if not isinstance(document, dict) or not document:
        return {path: document}
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= leaves(value, f"{path}/{key.replace('~', '~0').replace('/', '~1')}")
    return found


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "~/"]), JSON), min_size=1, max_size=4))
def test_a_deep_merge_keeps_the_earliest_of_every_value(documents: list[Any]) -> None:
    """And reports the others, each at its place."""
    document, conflicts, _ = merged(
        Merge.DEEP_MERGE, [outcome(place, result=each) for place, each in enumerate(documents)]
    )
    assert naive_merge(documents) == leaves(document)
    for conflict in conflicts:
        later = documents[int(conflict.task_id.removeprefix("task-"))]
        assert any(
            at == conflict.path or at.startswith(f"{conflict.path}/") for at in leaves(later)
        )


@given(st.lists(JSON, min_size=1, max_size=3))
def test_a_deep_merge_of_the_same_has_no_conflict(documents: list[Any]) -> None:
    """And leaves what it was given as it was."""
    before = repr(documents[0])
    twice = [outcome(place, result=documents[0]) for place in (0, 1)]
    assert (documents[0], (), 0) == merged(Merge.DEEP_MERGE, twice)
    assert before == repr(documents[0])


MERGES: dict[str, tuple[list[Any], Any, list[tuple[str, str]]]] = {
    "objects": ([{"a": {"x": 1}}, {"a": {"y": 2}, "b": 3}], {"a": {"x": 1, "y": 2}, "b": 3}, []),
    "equal": ([{"a": [1]}, {"a": [1]}], {"a": [1]}, []),
    "numbers": ([{"a": 1}, {"a": 1.0}], {"a": 1}, []),
    "true is not 1": ([{"a": 1}, {"a": True}], {"a": 1}, [("/a", "task-1")]),
    "true in a list": ([{"a": [1]}, {"a": [True]}], {"a": [1]}, [("/a", "task-1")]),
    "lists": ([{"a": [1]}, {"a": [2]}], {"a": [1]}, [("/a", "task-1")]),
    "deep": (
        [{"a": {"b/c": {"~": 1}}}, {"a": {"b/c": {"~": 2}}}],
        {"a": {"b/c": {"~": 1}}},
        [("/a/b~1c/~0", "task-1")],
    ),
    "object and scalar": ([{"a": {"x": 1}}, {"a": 5}], {"a": {"x": 1}}, [("/a", "task-1")]),
    "no objects": ([{"a": 1}, [1], "text"], {"a": 1}, [("", "task-1"), ("", "task-2")]),
    "null": ([{"a": None}, {"a": 1}], {"a": None}, [("/a", "task-1")]),
}


@pytest.mark.parametrize("case", MERGES)
def test_a_deep_merge(case: str) -> None:
    """By examples."""
    documents, expected, conflicts = MERGES[case]
    document, found, number = merged(
        Merge.DEEP_MERGE, [outcome(place, result=each) for place, each in enumerate(documents)]
    )
    assert repr(expected) == repr(document)
    assert conflicts == [(each.path, each.task_id) for each in found]
    assert len(conflicts) == number


@given(st.lists(JSON, min_size=2, max_size=4))
def test_a_deep_merge_changes_no_result(documents: list[Any]) -> None:
    """What it makes of them is its own."""
    before = repr(documents)
    merged(Merge.DEEP_MERGE, [outcome(place, result=each) for place, each in enumerate(documents)])
    assert before == repr(documents)


@pytest.mark.parametrize(
    ("key", "listed"), [("a", MAX_CONFLICTS), ("~" * (MAX_CONFLICT_CHARACTERS // 20), 10)]
)
def test_the_conflicts_that_are_listed_are_bounded(key: str, listed: int) -> None:
    """In number and in size; a note says how many there were."""
    number = MAX_CONFLICTS + 5
    results = [outcome(place, result={key: place}) for place in range(number + 1)]
    joined = join(by_position(*results), AggregatePolicy(merge=Merge.DEEP_MERGE), number + 1)
    assert (listed, number) == (len(joined.conflicts), joined.conflicts_found)
    assert [f"task-{n}" for n in range(1, 1 + listed)] == [
        each.task_id for each in joined.conflicts
    ]
    assert f"{number:,} conflicts; only the first {listed:,} stand here" == joined.note


def test_conflicts_that_are_all_listed_need_no_note() -> None:
    """Their list says it."""
    both = by_position(outcome(0, result=1), outcome(1, result=2))
    joined = join(both, AggregatePolicy(merge=Merge.DEEP_MERGE), 2)
    assert (1, None) == (joined.conflicts_found, joined.note)


def test_results_by_agent_stand_in_the_order_of_positions() -> None:
    """Each agent's in a list of its own."""
    found = [
        outcome(place, agent=agent, result=place)
        for place, agent in enumerate(["reader", "writer", "reader", None])
    ]
    assert ({"reader": [0, 2], "writer": [1], "": [3]}, (), 0) == merged(Merge.BY_AGENT, found)


def test_the_first_result_is_that_of_the_task_that_ended_first() -> None:
    """Of two at the same time, the one of the lower position."""
    times = [2, 1, 1]
    found = [
        outcome(place, result=place, at=NOON + timedelta(seconds=second))
        for place, second in enumerate(times)
    ]
    assert (1, (), 0) == merged(Merge.FIRST, found)


@pytest.mark.parametrize("merge", Merge)
def test_nothing_is_made_of_no_results(merge: Merge) -> None:
    """Neither a document nor a conflict."""
    assert (None, (), 0) == merged(merge, [])


def test_what_was_left_out_is_listed_and_not_merged() -> None:
    """Nobody takes it for an answer of null."""
    large = outcome(0, agent="reader", left_out=True)
    joined = join(by_position(large), AggregatePolicy(merge=Merge.FIRST), 1)
    assert None is joined.merged
    assert [True] == [each.left_out for each in joined.results]
    assert "left_out" in joined.results[0].model_dump()
    assert "left_out" not in ResultItem(task_id="task-1").model_dump()


def test_errors_say_what_became_of_a_task() -> None:
    """Failed, cancelled, or not known."""
    joined = join(
        by_position(
            outcome(0, FAILED, agent="reader", error="disk full", error_type="AgentFailed"),
            outcome(1, CANCELLED, agent="reader"),
            outcome(2, FAILED, known=False),
        ),
        AggregatePolicy(),
        3,
    )
    assert [
        ("task-0", "reader", "disk full", "AgentFailed"),
        ("task-1", "reader", "The task was cancelled", "Cancelled"),
        ("task-2", None, "Task 'task-2' is not known", "TaskNotFound"),
    ] == [(each.task_id, each.agent, each.error, each.error_type) for each in joined.errors]
    assert (2, 1) == (joined.counts.failed, joined.counts.cancelled)


VERDICTS = [
    (Simple.ALL, counts(9), Verdict.OPEN),
    (Simple.ALL, counts(5, 3, 2), Verdict.MET),
    (Simple.ANY, counts(0, 9), Verdict.OPEN),
    (Simple.ANY, counts(1), Verdict.MET),
    (Simple.ANY, counts(0, 10), Verdict.IMPOSSIBLE),
    (AtLeast(at_least=3), counts(2, 7), Verdict.OPEN),
    (AtLeast(at_least=3), counts(3), Verdict.MET),
    (AtLeast(at_least=3), counts(2, 4, 4), Verdict.IMPOSSIBLE),
    (AtLeast(at_least=11), counts(), Verdict.IMPOSSIBLE),
    (MaxFailedPercent(max_failed_percent=20), counts(7, 1, 1), Verdict.OPEN),
    (MaxFailedPercent(max_failed_percent=20), counts(8, 1, 1), Verdict.MET),
    (MaxFailedPercent(max_failed_percent=20), counts(0, 2, 1), Verdict.IMPOSSIBLE),
    (MaxFailedPercent(max_failed_percent=0.29), counts(9971, 29, total=10000), Verdict.MET),
    (MaxFailedPercent(max_failed_percent=0), counts(10), Verdict.MET),
]


@pytest.mark.parametrize(("condition", "now", "expected"), VERDICTS)
def test_verdicts(condition: Any, now: Counts, expected: Verdict) -> None:
    """By examples of ten tasks."""
    assert expected is verdict(AggregatePolicy(join=condition), now)


def test_all_with_cancel_rest_asks_for_success() -> None:
    """Also of the last one."""
    policy = AggregatePolicy(on_failure=OnFailure.CANCEL_REST)
    assert Verdict.IMPOSSIBLE is verdict(policy, counts(9, 1))
    assert (True, True) == (is_over(policy, counts(3, 1)), cancels_rest(policy, counts(3, 1)))


def test_a_failure_cancels_the_rest_where_that_was_asked_for() -> None:
    """Though the condition may yet hold."""
    patient = AggregatePolicy(join=Simple.ANY)
    strict = AggregatePolicy(join=Simple.ANY, on_failure=OnFailure.CANCEL_REST)
    now = counts(0, 1)
    assert (False, False) == (is_over(patient, now), cancels_rest(patient, now))
    assert (True, True) == (is_over(strict, now), cancels_rest(strict, now))


def test_a_condition_that_holds_cancels_the_rest_where_that_was_asked_for() -> None:
    """Else they go on."""
    leaving = AggregatePolicy(join=Simple.ANY)
    cancelling = AggregatePolicy(join=Simple.ANY, on_met=OnMet.CANCEL_REST)
    assert not cancels_rest(leaving, counts(1))
    assert cancels_rest(cancelling, counts(1))
    assert not cancels_rest(cancelling, counts(10))


SHORTFALLS = [
    (Simple.ANY, counts(0, 10), "None of 10 tasks completed"),
    (AtLeast(at_least=3), counts(2, 8), "2 of 10 tasks completed; 3 must"),
    (
        MaxFailedPercent(max_failed_percent=12.5),
        counts(0, 1, 1),
        "2 of 10 tasks ended without success; 12.5 percent may",
    ),
    (Simple.ALL, counts(9, 1), "1 of 10 tasks ended without success"),
]


@pytest.mark.parametrize(("condition", "now", "expected"), SHORTFALLS)
def test_a_shortfall_says_what_lacks(condition: Any, now: Counts, expected: str) -> None:
    """In a sentence."""
    assert expected == shortfall(AggregatePolicy(join=condition), now)


def test_reports_are_gathered_in_their_order() -> None:
    """The first outcome of a task counts, until it is opened again."""
    failed, late, again = outcome(0, FAILED), outcome(0, result="late"), outcome(0, result="again")
    first, second = JoinReport(outcomes=(failed,)), JoinReport(outcomes=(late, outcome(1)))
    assert {0: failed, 1: outcome(1)} == gathered([first, second])
    reopened = JoinReport(reopened=(0, 7))
    assert {1: outcome(1)} == gathered([first, second, reopened])
    assert again == gathered([first, second, reopened, JoinReport(outcomes=(again,))])[0]
