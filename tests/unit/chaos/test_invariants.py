"""The fault suite's checks find what they are there for: a planted violation, and no other."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.invariants import Facts, check
from tests.chaos.ledger import Item, Ledger
from tests.chaos.receiver import Told
from tests.chaos.records import Begun, Records, most_at_once, most_in
from tests.chaos.replies import Kind
from tests.chaos.settling import Settled

DONE, DEAD, ONCE = "task-done", "task-dead", "task-once"


def begun(number: int, key: str, agent: str = "plain", at: float = 0.0) -> Begun:
    """A call as its agent saw it."""
    return Begun(f"1.{number}.{at}", at, key, number, agent, "ok", key, 1)


def note(records: Records, *calls: Begun) -> None:
    """Add calls that ended a second after they began."""
    for call in calls:
        records.begun.append(call)
        records.by_number[call.number].append(call)
        records.ended[call.call] = call.at + 1


def ended(status: str, **more: Any) -> dict[str, Any]:
    """A final status."""
    return {"status": status, **more}


def good() -> Facts:
    """A run in which all held: one task completed and told of, one dead letter, one called once."""
    ledger, settled, records = Ledger(), Settled(), Records()
    for task_id in (DONE, DEAD, ONCE):
        item = ledger.add("once" if task_id == ONCE else "queued", [Kind.OK], key=f"key-{task_id}")
        ledger.accepted(item, task_id)
    ledger.by_id[DONE].callback_url = "http://receiver"
    result = {"number": 1, "key": DONE}
    settled.statuses[DONE] = ended("completed", result=result)
    settled.statuses[DEAD] = ended("failed", error_type="AgentFailed", dead_letter=True)
    settled.statuses[ONCE] = ended("completed", result={"number": 3, "key": ONCE})
    settled.dead_letters.add(DEAD)
    settled.listed |= {DONE, DEAD, ONCE}
    settled.callbacks[DONE] = {"status": "delivered"}
    told = Told({DONE}, {DONE: {"a body"}}, {DONE: {"status": "completed"}})
    note(records, begun(1, DONE), begun(2, DEAD), begun(2, DEAD, at=5.0), begun(3, ONCE, "once"))
    return Facts(ledger, settled, records, {DONE: told}, faults=1)


def violated(facts: Facts) -> list[str]:
    """Which checks found something."""
    return [each.what for each in check(facts) if each.violations]


def test_a_good_run_violates_nothing() -> None:
    """And the checks looked at its tasks."""
    found = {each.what: each.checked for each in check(good())}
    assert [] == violated(good())
    assert 3 == found["every accepted task has one final state"]
    assert 1 == found["callbacks are delivered or dead, under one id"]


def lose(facts: Facts) -> None:
    """A task that nobody knows any more, though it was accepted."""
    del facts.settled.statuses[ONCE]


def hang(facts: Facts) -> None:
    """A task that does not end."""
    facts.settled.statuses[ONCE] = ended("running")


def double(facts: Facts) -> None:
    """A task beside the one that was asked for."""
    facts.settled.listed.add("another")


def swap(facts: Facts) -> None:
    """The result of another task."""
    facts.settled.statuses[DONE]["result"] = {"number": 3, "key": ONCE}


def change_key(facts: Facts) -> None:
    """A second attempt under another key."""
    note(facts.records, begun(1, "other", at=2.0))


def call_twice(facts: Facts) -> None:
    """An agent that must be called once is called again."""
    note(facts.records, begun(3, ONCE, "once", at=2.0))


def forget_letter(facts: Facts) -> None:
    """An exhausted task without a dead letter."""
    facts.settled.dead_letters.clear()


def needless_letter(facts: Facts) -> None:
    """A dead letter of a task that has completed."""
    facts.settled.dead_letters.add(DONE)


def letter_of_a_refusal(facts: Facts) -> None:
    """A dead letter of what the agent refused for good."""
    facts.settled.statuses[DEAD]["error_type"] = "AgentRejected"


def other_words(facts: Facts) -> None:
    """Two bodies under one webhook-id."""
    facts.told[DONE].texts[DONE].add("another body")


def other_id(facts: Facts) -> None:
    """A webhook-id that is not the task's."""
    facts.told[DONE].webhook_ids.add("another")


def claim_delivery(facts: Facts) -> None:
    """Delivered, and nobody took it."""
    facts.told[DONE].accepted.clear()


def tell_otherwise(facts: Facts) -> None:
    """The receiver heard of another end."""
    facts.told[DONE].accepted[DONE]["status"] = "failed"


def forget_callback(facts: Facts) -> None:
    """No callback where one was asked for."""
    facts.settled.callbacks.clear()


def unsign(facts: Facts) -> None:
    """A callback whose signature does not hold."""
    facts.unsigned = 1


def crowd(facts: Facts) -> None:
    """More calls at once than all processes may make."""
    crowded = [begun(1, DONE, at=0.0) for _ in range(60)]
    for number, call in enumerate(crowded):
        crowded[number] = replace(call, call=f"1.{number}.crowd")
        facts.records.ended[f"1.{number}.crowd"] = 3.0
    facts.records.begun.extend(crowded)


def hurry(facts: Facts) -> None:
    """More calls a minute than the agent may get."""
    facts.records.begun.extend(begun(1, DONE, "metered", at=n / 10) for n in range(200))


def grow(facts: Facts) -> None:
    """A process that takes all memory."""
    facts.most_memory = {"worker": 2_000_000_000}


def follow(facts: Facts) -> None:
    """A redirect that was followed."""
    facts.records.forbidden = 1


def swallow(facts: Facts) -> None:
    """A poison message that is nowhere."""
    facts.ledger.poison.add("poison")


def shorten(facts: Facts) -> None:
    """A batch that lacks an item."""
    facts.ledger.batches["batch"] = [Item(9, "queued", [])]
    facts.settled.batches["batch"] = {"total": 1, "completed": 0, "failed": 0, "cancelled": 0}
    facts.settled.batch_items["batch"] = []


def leave_out(facts: Facts) -> None:
    """An aggregate that lacks a task."""
    facts.ledger.aggregates["join"] = ([DONE, DEAD], [])
    result = {"task_id": DONE}
    facts.settled.aggregates["join"] = {
        "status": "completed",
        "total_tasks": 2,
        "results": [result],
        "errors": [],
    }


def fire_nothing(facts: Facts) -> None:
    """A run without a fault."""
    facts.faults = 0


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (lose, "every accepted task has one final state"),
        (hang, "every accepted task has one final state"),
        (double, "no task that nobody asked for"),
        (swap, "a result belongs to its task"),
        (change_key, "all calls of a task carry its one key"),
        (call_twice, "agents that must not be called twice are not"),
        (forget_letter, "exhausted tasks are dead letters"),
        (letter_of_a_refusal, "exhausted tasks are dead letters"),
        (needless_letter, "nothing else is a dead letter"),
        (other_words, "callbacks are delivered or dead, under one id"),
        (other_id, "callbacks are delivered or dead, under one id"),
        (claim_delivery, "callbacks are delivered or dead, under one id"),
        (tell_otherwise, "callbacks are delivered or dead, under one id"),
        (forget_callback, "callbacks are delivered or dead, under one id"),
        (unsign, "callbacks are signed"),
        (crowd, "calls at once stay within their bound"),
        (hurry, "calls a minute stay within their bound"),
        (grow, "memory stays within its bound"),
        (follow, "redirects are not followed"),
        (swallow, "poison messages are set aside"),
        (shorten, "a batch has all its items"),
        (leave_out, "an aggregate has all its tasks"),
        (fire_nothing, "faults fired, and tasks completed in spite of them"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[Facts], None], expected: str) -> None:
    """By the check that is there for it, and by no other."""
    facts = good()
    plant(facts)
    assert [expected] == violated(facts)


def test_a_final_state_that_changes_is_found() -> None:
    """Whenever it is read again."""
    ledger = Ledger()
    item = ledger.add("queued", [Kind.OK])
    ledger.seen(item, ended("running"), 0)
    ledger.seen(item, ended("completed", result=1), 0)
    ledger.seen(item, ended("completed", result=1, updated_at="later"), 0)
    assert [] == ledger.violations
    ledger.seen(item, ended("failed"), 0)
    assert ["I2"] == [each.invariant for each in ledger.violations]


def test_a_redriven_task_may_end_otherwise() -> None:
    """While the order is under way it may be as it was; what was asked before does not count."""
    ledger = Ledger()
    item = ledger.add("queued", [Kind.OK])
    ledger.seen(item, ended("failed"), 0)
    with ledger.redriving(item):
        ledger.seen(item, ended("failed"), 0)
        ledger.seen(item, ended("running"), 0)
    ledger.seen(item, ended("failed"), 0)
    ledger.seen(item, ended("completed"), 1)
    assert ([], "completed") == (ledger.violations, (item.final or {})["status"])


def test_a_key_with_two_ids_is_found() -> None:
    """One submission became two tasks."""
    ledger = Ledger()
    item = ledger.add("queued", [Kind.OK])
    ledger.accepted(item, "a")
    ledger.accepted(item, "b")
    assert ["I6"] == [each.invariant for each in ledger.violations]


def test_an_id_for_two_tasks_is_found() -> None:
    """Two submissions became one."""
    ledger = Ledger()
    for _ in range(2):
        ledger.accepted(ledger.add("queued", [Kind.OK]), "a")
    assert ["I1"] == [each.invariant for each in ledger.violations]


def test_a_short_overlap_is_none() -> None:
    """Two calls at once count when that lasts."""
    assert 1 == most_at_once([(0, 5), (4.5, 9)], lasting=1.0)
    assert 2 == most_at_once([(0, 5), (3, 9)], lasting=1.0)
    assert 2 == most_at_once([(0, 5), (3, 9), (4.9, 5.1)], lasting=1.0)


def test_the_most_within_a_window() -> None:
    """Moments at both its ends are within."""
    assert (0, 3) == (most_in([], 1), most_in([0, 5, 5.5, 6, 9], 1))
