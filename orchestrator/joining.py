"""Joining tasks: when a join holds, and what is made of the results. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from orchestrator.aggregate_status import (
    AggregateState,
    AggregateStatus,
    Conflict,
    ErrorItem,
    ResultItem,
)
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
from orchestrator.models import TaskState

CANCELLED = "Cancelled"
"""The error type of a task that was cancelled."""
NOT_FOUND = "TaskNotFound"
"""The error type of an id that no task has."""
MAX_CONFLICTS = 1_000
"""That are listed; all are counted."""
MAX_CONFLICT_CHARACTERS = 1_000_000
"""Of the pointers of those: none is listed after so many."""

_LATEST = datetime.max.replace(tzinfo=UTC)


class Verdict(StrEnum):
    """Whether a join's condition holds: not yet, from now on, never."""

    OPEN = "open"
    MET = "met"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True)
class Aggregate:
    """What some tasks come to together; results and errors in the order of positions.

    ``conflicts`` are the first of ``conflicts_found``.
    """

    counts: Counts
    verdict: Verdict
    results: tuple[ResultItem, ...]
    errors: tuple[ErrorItem, ...]
    merged: Any
    conflicts: tuple[Conflict, ...]
    conflicts_found: int

    @property
    def note(self) -> str | None:
        """What is not listed."""
        if self.conflicts_found == len(self.conflicts):
            return None
        return (
            f"{self.conflicts_found:,} conflicts; only the first {len(self.conflicts):,} stand here"
        )


class Merged(NamedTuple):
    """The one document that is made of results, and what did not fit: the first of so many."""

    document: Any = None
    conflicts: tuple[Conflict, ...] = ()
    conflicts_found: int = 0


def verdict(policy: AggregatePolicy, counts: Counts) -> Verdict:
    """Whether the condition holds, by what has ended until now; OPEN only while some have not.

    ``all`` asks for ends only, but with ``on_failure: cancel_rest`` for success: it then fails
    whenever a task does, be it the last one.
    """
    join, pending = policy.join, counts.pending
    if join is Simple.ALL:
        strict = policy.on_failure is OnFailure.CANCEL_REST
        return _when(holds=not pending, fails=strict and counts.lost > 0)
    if isinstance(join, MaxFailedPercent):
        too_many = _exceeds(counts.lost, counts.total, join)
        return _when(holds=not pending, fails=too_many)
    needed = join.at_least if isinstance(join, AtLeast) else 1
    return _when(holds=counts.completed >= needed, fails=counts.completed + pending < needed)


def _when(*, holds: bool, fails: bool) -> Verdict:
    if fails:
        return Verdict.IMPOSSIBLE
    return Verdict.MET if holds else Verdict.OPEN


def _exceeds(lost: int, total: int, most: MaxFailedPercent) -> bool:
    # By the digits that were given: as a binary fraction, 0.29 is a little less.
    return lost * 100 > Decimal(repr(most.max_failed_percent)) * total


def is_over(policy: AggregatePolicy, counts: Counts) -> bool:
    """Whether there is nothing more to wait for."""
    return verdict(policy, counts) is not Verdict.OPEN or _fails_fast(policy, counts)


def cancels_rest(policy: AggregatePolicy, counts: Counts) -> bool:
    """Whether the tasks that have not ended are to be cancelled now."""
    met = verdict(policy, counts) is Verdict.MET and policy.on_met is OnMet.CANCEL_REST
    return counts.pending > 0 and (met or _fails_fast(policy, counts))


def _fails_fast(policy: AggregatePolicy, counts: Counts) -> bool:
    return policy.on_failure is OnFailure.CANCEL_REST and counts.lost > 0


def shortfall(policy: AggregatePolicy, counts: Counts) -> str:
    """Why the condition does not hold, in a sentence for people."""
    lost = f"{counts.lost} of {counts.total} tasks ended without success"
    join = policy.join
    if isinstance(join, MaxFailedPercent) and counts.lost:
        return f"{lost}; {join.max_failed_percent:g} percent may"
    if isinstance(join, AtLeast):
        return f"{counts.completed} of {counts.total} tasks completed; {join.at_least} must"
    if join is Simple.ANY:
        return f"None of {counts.total} tasks completed"
    return lost


def progress(
    state: AggregateState,
    reason: str | None,
    policy: AggregatePolicy,
    counts: Counts,
    deadline: datetime,
) -> str:
    """How far it has come, for the Web UI; the deadline is a time of day."""
    condition = policy.join if isinstance(policy.join, Simple) else policy.join.model_dump_json()
    return (
        f"**{state.capitalize()}**{f': {reason}' if reason else ''}\n\n"
        f"{counts.total - counts.pending} of {counts.total} tasks have ended: "
        f"{counts.completed} completed, {counts.failed} failed, {counts.cancelled} cancelled. "
        f"Joined when `{condition}`, at the latest {deadline:%Y-%m-%d %H:%M:%S} UTC. "
        "Send the signal `redrive` to run the failed ones again."
    )


def gathered(reports: Iterable[JoinReport]) -> dict[int, Joined]:
    """How the tasks stand after reports in their order: the outcome of each that has ended."""
    outcomes: dict[int, Joined] = {}
    for report in reports:
        for position in report.reopened:
            outcomes.pop(position, None)
        for outcome in report.outcomes:
            outcomes.setdefault(outcome.position, outcome)
    return outcomes


def join(outcomes: Mapping[int, Joined], policy: AggregatePolicy, total: int) -> Aggregate:
    """Join the outcomes that are there, by position, of so many tasks."""
    ended = [outcomes[position] for position in sorted(outcomes)]
    counts = Counts(total=total).with_ends(each.state for each in ended)
    completed = [each for each in ended if each.state is TaskState.COMPLETED]
    made = merged(policy.merge, completed)
    return Aggregate(
        counts=counts,
        verdict=verdict(policy, counts),
        results=tuple(map(_result, completed)),
        errors=tuple(_error(each) for each in ended if each.state is not TaskState.COMPLETED),
        merged=made.document,
        conflicts=made.conflicts,
        conflicts_found=made.conflicts_found,
    )


def with_results(status: AggregateStatus, joined: Aggregate) -> AggregateStatus:
    """The status of an aggregate, and what its tasks brought."""
    return status.model_copy(
        update={
            "results": joined.results,
            "errors": joined.errors,
            "merged": joined.merged,
            "conflicts": joined.conflicts,
            "note": joined.note,
        }
    )


def _result(outcome: Joined) -> ResultItem:
    return ResultItem(
        task_id=outcome.task_id,
        agent=outcome.agent,
        result=outcome.result,
        execution_time=outcome.execution_time,
        left_out=outcome.left_out,
    )


def _error(outcome: Joined) -> ErrorItem:
    error, kind = outcome.error or "The task failed", outcome.error_type
    if not outcome.known:
        error, kind = f"Task '{outcome.task_id}' is not known", NOT_FOUND
    elif outcome.state is TaskState.CANCELLED:
        error, kind = "The task was cancelled", CANCELLED
    return ErrorItem(task_id=outcome.task_id, agent=outcome.agent, error=error, error_type=kind)


def merged(merge: Merge, completed: Sequence[Joined]) -> Merged:
    """What is made of results, in the order given, none of which is changed.

    Nothing for a list, which stands for itself, and where there is no result. What was left out of
    an outcome is no result.
    """
    there = [each for each in completed if not each.left_out]
    if merge is Merge.LIST or not there:
        return Merged()
    if merge is Merge.FIRST:
        return Merged(min(there, key=lambda each: (each.at or _LATEST, each.position)).result)
    if merge is Merge.BY_AGENT:
        by_agent: dict[str, list[Any]] = {}
        for each in there:
            by_agent.setdefault(each.agent or "", []).append(each.result)
        return Merged(by_agent)
    merging = _Merging(there[0].result)
    for each in there[1:]:
        merging.add(each)
    return Merged(merging.document, tuple(merging.conflicts), merging.found)


class _Merging:
    """A document of its own, into which results are merged: each is read once."""

    def __init__(self, first: Any) -> None:
        self.document = _copied(first)
        self.conflicts: list[Conflict] = []
        self.found = 0
        self._characters = 0

    def add(self, later: Joined) -> None:
        """Take in what has no other value yet."""
        self._meet(self.document, later.result, [], later.task_id)

    def _meet(self, earlier: Any, later: Any, path: list[str], task_id: str) -> None:
        if not (isinstance(earlier, dict) and isinstance(later, dict)):
            if not _same(earlier, later):
                self._differ(path, task_id)
            return
        for key, value in later.items():
            if key in earlier:
                path.append(key)
                self._meet(earlier[key], value, path, task_id)
                path.pop()
            else:
                earlier[key] = _copied(value)

    def _differ(self, path: Sequence[str], task_id: str) -> None:
        """Count a conflict, and list it by its JSON pointer if it is one of the first."""
        self.found += 1
        full = self._characters >= MAX_CONFLICT_CHARACTERS
        if len(self.conflicts) < MAX_CONFLICTS and not full:
            pointer = "".join(f"/{key.replace('~', '~0').replace('/', '~1')}" for key in path)
            self.conflicts.append(Conflict(path=pointer, task_id=task_id))
            self._characters += len(pointer)


def _copied(value: Any) -> Any:
    """The same, of which objects may be changed; lists are never merged."""
    return {key: _copied(each) for key, each in value.items()} if isinstance(value, dict) else value


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON, where true is not 1 but 1.0 is."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
