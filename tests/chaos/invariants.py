"""What must hold when all is over, each checked against all tasks that it speaks of."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.ledger import FINAL, Item, Ledger
from tests.chaos.receiver import Told
from tests.chaos.records import Records, most_at_once, most_in
from tests.chaos.settling import Settled
from tests.chaos.stage import (
    AGENTS,
    ATTEMPT_SECONDS,
    MAX_CONNECTIONS,
    METERED_A_MINUTE,
    METERED_BURST,
)

CALLERS = 4
LASTING_SECONDS = 2.0
WINDOW_SECONDS = 20.0
MOST_MEMORY_BYTES = 1_000_000_000
EXHAUSTED = frozenset({
    *("AgentFailed", "AgentTimedOut", "AgentUnreachable", "AgentDisconnected", "AgentOverloaded"),
    *("DeadlineExceeded", "WorkerLost", "OutcomeUnknown"),
})  # fmt: skip
"""What leads to a dead letter; an agent's refusal and an answer that cannot be used do not."""


@dataclass
class Facts:
    """All that is known at the end."""

    ledger: Ledger
    settled: Settled
    records: Records
    told: Mapping[str, Told] = field(default_factory=dict)
    unsigned: int = 0
    agent_deaths: Mapping[int, float] = field(default_factory=dict)
    engine_deaths: int = 0
    most_memory: Mapping[str, int] = field(default_factory=dict)
    faults: int = 0


@dataclass(frozen=True)
class Check:
    """One promise: how often it was looked at, and where it was not kept."""

    invariant: str
    what: str
    checked: int
    violations: tuple[str, ...] = ()


Finding = str | None
Test = Callable[[Facts], Iterator[Finding]]
"""Yields once for each thing that was checked: None, or what is wrong with it."""


def check(facts: Facts) -> list[Check]:
    """Every promise, checked against everything."""
    found = []
    for invariant, what, test in TESTS:
        findings = list(test(facts))
        wrong = tuple(each for each in findings if each is not None)
        found.append(Check(invariant, what, len(findings), wrong))
    return found


def _ended_once(facts: Facts) -> Iterator[Finding]:
    for task_id in facts.ledger.by_id:
        status = facts.settled.statuses.get(task_id, {}).get("status")
        yield None if status in FINAL else f"{task_id} is {status}"


def _all_known(facts: Facts) -> Iterator[Finding]:
    """The engine has no task that nobody asked for."""
    asked = facts.ledger.by_id.keys() | _of_aggregates(facts)
    for task_id in facts.settled.listed:
        yield None if task_id in asked else f"{task_id} was asked for by nobody"


def _of_aggregates(facts: Facts) -> set[str]:
    return {
        each["task_id"]
        for aggregate in facts.settled.aggregates.values()
        for part in ("results", "errors")
        for each in aggregate[part]
    }


def _own_results(facts: Facts) -> Iterator[Finding]:
    """A result is that of the task's own call."""
    for task_id, status in facts.settled.statuses.items():
        if status["status"] == "completed":
            number = facts.ledger.by_id[task_id].number
            result = status.get("result") or {}
            good = (result.get("number"), result.get("key")) == (number, task_id)
            yield None if good else f"{task_id} (task {number}) has the result {result}"


def _batches(facts: Facts) -> Iterator[Finding]:
    for batch_id, items in facts.ledger.batches.items():
        status = facts.settled.batches[batch_id]
        lines = facts.settled.batch_items.get(batch_id, [])
        ended = sum(status[each] for each in ("completed", "failed", "cancelled"))
        good = len(items) == len(lines) == status["total"] == ended
        yield None if good else f"batch {batch_id} of {len(items)}: {status}, {len(lines)} lines"


def _aggregates(facts: Facts) -> Iterator[Finding]:
    for aggregate_id, (ids, items) in facts.ledger.aggregates.items():
        found = facts.settled.aggregates[aggregate_id]
        joined = len(found["results"]) + len(found["errors"])
        total = len(ids) + len(items)
        good = found["status"] == "completed" and total == joined == found["total_tasks"]
        yield None if good else f"aggregate {aggregate_id} of {total}: {str(found)[:300]}"


def _final_for_good(facts: Facts) -> Iterator[Finding]:
    """The ledger compares each reading with the first; here they are counted."""
    for item in facts.ledger.by_id.values():
        if item.finals > 1:
            yield None


def _same_key(facts: Facts) -> Iterator[Finding]:
    for number, calls in facts.records.by_number.items():
        keys = {each.key for each in calls} | {each.task_id for each in calls}
        task_id = facts.ledger.items[number].task_id
        good = len(keys) == 1 and (task_id is None or keys == {task_id})
        yield (
            None
            if good
            else f"task {number} ({task_id}) was called for with {sorted(map(str, keys))}"
        )


def _called_once(facts: Facts) -> Iterator[Finding]:
    """An agent that must not be called twice is called once a run."""
    for item in facts.ledger.items.values():
        calls = [
            each for each in facts.records.by_number.get(item.number, ()) if each.agent == "once"
        ]
        if calls:
            good = len(calls) <= 1 + item.redriven
            yield None if good else f"{item.task_id} was called {len(calls)} times, and may be once"


def _dead_letters(facts: Facts) -> Iterator[Finding]:
    for task_id, status in facts.settled.statuses.items():
        if status["status"] != "failed":
            continue
        item = facts.ledger.by_id[task_id]
        exhausted = status.get("error_type") in EXHAUSTED and not item.discarded
        there = task_id in facts.settled.dead_letters
        if exhausted != there and not (item.discarded and there):
            yield f"{task_id} failed with {status.get('error_type')}; dead letter: {there}"
        else:
            yield None


def _no_other_letters(facts: Facts) -> Iterator[Finding]:
    for task_id in facts.settled.dead_letters:
        status = facts.settled.statuses.get(task_id, {}).get("status")
        yield None if status == "failed" else f"{task_id} is a dead letter, and {status}"


def _callbacks(facts: Facts) -> Iterator[Finding]:
    for item in facts.ledger.by_id.values():
        if item.callback_url and item.task_id:
            yield _callback(facts, item, item.task_id)


def _callback(facts: Facts, item: Item, task_id: str) -> Finding:
    callback = facts.settled.callbacks.get(task_id)
    told = facts.told.get(task_id, Told())
    runs = {task_id} | {f"{task_id}~{number}" for number in range(2, item.redriven + 2)}
    if callback is None:
        return f"{task_id} has no callback"
    if not told.webhook_ids <= runs:
        return f"{task_id} was told of as {sorted(told.webhook_ids)}"
    if any(len(texts) != 1 for texts in told.texts.values()):
        return f"{task_id} was told in different words under one webhook-id"
    if callback["status"] == "delivered":
        return _delivered(facts, told, task_id)
    return None


def _delivered(facts: Facts, told: Told, task_id: str) -> Finding:
    status = facts.settled.statuses[task_id]["status"]
    if not told.accepted:
        return f"the callback of {task_id} is delivered, and its receiver took none"
    if all(data["status"] != status for data in told.accepted.values()):
        return f"{task_id} is {status}, and its receiver was told otherwise"
    return None


def _signed(facts: Facts) -> Iterator[Finding]:
    for told in facts.told.values():
        for _ in told.webhook_ids:
            yield None
    if facts.unsigned:
        yield f"{facts.unsigned} callbacks had no signature that holds"


def _one_each(facts: Facts) -> Iterator[Finding]:
    """The ledger sees to it that no key gets two ids; here those with a key are counted."""
    for item in facts.ledger.items.values():
        if item.key and item.task_id:
            yield None


def _calls_at_once(facts: Facts) -> Iterator[Finding]:
    for agent in AGENTS:
        spans = facts.records.spans(agent, facts.agent_deaths, ATTEMPT_SECONDS)
        most = most_at_once(spans, LASTING_SECONDS)
        bound = MAX_CONNECTIONS * CALLERS
        yield None if most <= bound else f"{agent} had {most} calls at once, and may have {bound}"


def _rate(facts: Facts) -> Iterator[Finding]:
    begins = [each.at for each in facts.records.begun if each.agent == "metered"]
    most = most_in(begins, WINDOW_SECONDS)
    # An engine that starts again begins with a full bucket.
    starts = 1 + min(2, facts.engine_deaths)
    bound = METERED_A_MINUTE / 60 * WINDOW_SECONDS * 1.5 + METERED_BURST * starts
    if begins:
        good = most <= bound
        yield None if good else f"{most} calls of `metered` in {WINDOW_SECONDS:g} s, over {bound:g}"


def _memory(facts: Facts) -> Iterator[Finding]:
    for name, used in facts.most_memory.items():
        good = used <= MOST_MEMORY_BYTES
        yield None if good else f"{name} took {used:,} bytes of memory"


def _redirects(facts: Facts) -> Iterator[Finding]:
    for _ in range(facts.records.kinds["redirect"]):
        yield None
    if facts.records.forbidden:
        yield f"{facts.records.forbidden} redirects were followed"


def _poison(facts: Facts) -> Iterator[Finding]:
    for name in facts.ledger.poison:
        yield None if name in facts.settled.buried else f"{name} is not among the dead letters"


def _enough(facts: Facts) -> Iterator[Finding]:
    """A run in which hardly anything happened proves nothing."""
    ends = [each["status"] for each in facts.settled.statuses.values()]
    yield None if facts.faults else "no fault fired"
    good = ends.count("completed") * 3 >= len(ends) > 0
    yield None if good else f"only {ends.count('completed')} of {len(ends)} tasks completed"


TESTS: tuple[tuple[str, str, Test], ...] = (
    ("I1", "every accepted task has one final state", _ended_once),
    ("I1", "no task that nobody asked for", _all_known),
    ("I1", "a result belongs to its task", _own_results),
    ("I1", "a batch has all its items", _batches),
    ("I1", "an aggregate has all its tasks", _aggregates),
    ("I2", "a final state stays", _final_for_good),
    ("I3", "all calls of a task carry its one key", _same_key),
    ("I3", "agents that must not be called twice are not", _called_once),
    ("I4", "exhausted tasks are dead letters", _dead_letters),
    ("I4", "nothing else is a dead letter", _no_other_letters),
    ("I5", "callbacks are delivered or dead, under one id", _callbacks),
    ("I5", "callbacks are signed", _signed),
    ("I6", "repeated submissions are one task", _one_each),
    ("I7", "calls at once stay within their bound", _calls_at_once),
    ("I7", "calls a minute stay within their bound", _rate),
    ("I7", "memory stays within its bound", _memory),
    ("I7", "redirects are not followed", _redirects),
    ("I7", "poison messages are set aside", _poison),
    ("I8", "faults fired, and tasks completed in spite of them", _enough),
)


def all_violations(ledger: Ledger, checks: list[Check]) -> list[dict[str, Any]]:
    """What was found on the way and at the end."""
    on_the_way = [{"invariant": each.invariant, "what": each.what} for each in ledger.violations]
    at_the_end = [
        {"invariant": check.invariant, "what": what}
        for check in checks
        for what in check.violations
    ]
    return on_the_way + at_the_end
