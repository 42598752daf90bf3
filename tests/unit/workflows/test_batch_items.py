"""The items of a batch in its workflow: what goes together, alone, first, and no more."""

from collections import Counter
from datetime import timedelta
from typing import Any

from pydantic_core import to_json

from orchestrator.batches import BatchPlan, BatchTally, Unfinished
from orchestrator.models import Attempt, Begun, Progress, Route, TaskState
from orchestrator.routing import agent_queue, led_by
from tests.support.plans import AGENT, plan
from tests.unit.workflows.items import (
    BATCH_ID,
    CREATED_AT,
    alone,
    batch,
    items_of,
    text,
    unfinished,
)
from workflows import batch_items, batch_lanes
from workflows.batch_items import Items

SECOND = Route(agent="second", endpoint="/read", task_queue=agent_queue("second"))


def taken(items: Items) -> list[tuple[int, tuple[int, ...]]]:
    """All chunks that can be taken."""
    found = []
    while chunk := items.next_chunk():
        found.append((chunk[0], chunk[2]))
    return found


def test_a_chunk_holds_items_of_one_plan() -> None:
    """In the order of their positions; the more urgent plan goes first."""
    assert [(1, (1, 3)), (0, (0, 2, 4))] == taken(items_of(batch(0, 1, 0, 1, 0)))


def test_a_chunk_has_at_most_so_many_items() -> None:
    """The rest is taken next."""
    many = batch_lanes.CHUNK_ITEMS + 1
    assert [batch_lanes.CHUNK_ITEMS, 1] == [
        len(positions) for _, positions in taken(items_of(batch(*[0] * many)))
    ]


def test_a_chunk_has_at_most_so_many_bytes() -> None:
    """But for one item that is larger by itself."""
    sizes = [0.6, 0.3, 0.2, 1.5, 0.1]
    given = batch(*[0] * len(sizes)).model_copy(
        update={"items": tuple("x" * int(each * batch_items.CHUNK_BYTES) for each in sizes)}
    )
    assert [(0, (0, 1)), (0, (2,)), (0, (3,)), (0, (4,))] == taken(items_of(given))


def test_items_that_were_not_begun_wait_before_the_others() -> None:
    """In their order."""
    items = items_of(batch(0, 0, 0, 0))
    chosen, _, positions = items.next_chunk() or (0, None, ())
    items.give_back(chosen, positions[1:])
    assert [(0, (1, 2, 3))] == taken(items)


def test_items_that_are_to_go_alone_are_in_no_chunk() -> None:
    """They are taken one by one, those that were begun before the others."""
    items = items_of(batch(0, 1, 1, plans=(BatchPlan(plan=plan()), alone())))
    _, _, positions = items.next_chunk() or (0, None, ())
    items.go_on(0, plan(), unfinished(0))
    first, second, third, fourth = (items.next_alone() for _ in range(4))
    assert (0,) == positions
    assert first == (plan(), 0, Begun(progress=Progress(sent=1, made=1), pause=1.5))
    assert [(1, None), (2, None)] == [each[1:] for each in (second, third) if each]
    assert fourth is None


def test_an_item_ends_once() -> None:
    """A second word about it changes nothing."""
    items = items_of(batch(0, 0))
    ends = [items.end(0, TaskState.COMPLETED), items.end(0, TaskState.FAILED)]
    assert [True, False] == ends
    assert BatchTally(total=2, completed=1) == items.tally


def test_cancelled_items_are_not_begun() -> None:
    """One that is under way goes on, and is begun no more when it is given back."""
    items = items_of(batch(0, 0, 1))
    chosen, _, positions = items.next_chunk() or (0, None, ())
    items.cancel([1, 2])
    assert BatchTally(total=3, cancelled=1) == items.tally
    items.give_back(chosen, positions)
    assert BatchTally(total=3, cancelled=2) == items.tally
    assert [(0, (0,))] == taken(items)


def test_an_item_that_is_cancelled_before_it_goes_on_alone_does_not() -> None:
    """What it was tried is lost with it."""
    items = items_of(batch(0))
    items.next_chunk()
    items.cancel([0])
    items.go_on(0, plan(), unfinished(0))
    assert (None, BatchTally(total=1, cancelled=1)) == (items.next_alone(), items.tally)


def test_a_cancelled_item_that_was_to_go_on_stays_cancelled_in_the_next_run() -> None:
    """The wish is carried out before the rest is handed on."""
    items = items_of(batch(0, 0))
    items.next_chunk()
    items.cancel([0])
    items.go_on(0, plan(), unfinished(0))
    items.go_on(0, plan(), unfinished(1))
    items.drop_unwanted()
    after = items_of(items.rest())
    found = after.next_alone()
    assert (1, None) == (found and found[1], after.next_alone())
    assert BatchTally(total=2, cancelled=1) == after.tally


def test_an_item_that_another_agent_has_tried_goes_on_there_in_the_next_run() -> None:
    """Its progress is that agent's."""
    routed = plan(fallbacks=(SECOND,))
    items = items_of(batch(0, 0, plans=(BatchPlan(plan=routed),)))
    items.next_chunk()
    items.go_on(0, led_by(routed, 1), unfinished(0))
    items.go_on(0, routed, unfinished(1))
    after = items_of(items.rest())
    agents = [found[0].agent for found in (after.next_alone(), after.next_alone()) if found]
    assert ["second", AGENT] == agents


def test_an_item_that_ended_before_it_was_to_go_on_is_not_handed_on() -> None:
    """Its outcome had come by a signal."""
    items = items_of(batch(0, 0))
    items.next_chunk()
    items.end(0, TaskState.COMPLETED)
    items.go_on(0, plan(), unfinished(0))
    items.go_on(0, plan(), unfinished(1))
    after = items_of(items.rest())
    found = after.next_alone()
    assert 1 == (found and found[1])
    assert BatchTally(total=2, completed=1) == after.tally


def test_the_rest_names_its_positions() -> None:
    """Whatever the first of a part is."""
    items = items_of(batch(0, 1, 0, first=7))
    items.end(8, TaskState.COMPLETED)
    rest = items.rest()
    assert ((7, 9), (0, 0), (text(0), text(2))) == (rest.positions, rest.chosen, rest.items)
    assert (BATCH_ID, CREATED_AT, BatchTally(total=3, completed=1)) == (
        rest.batch_id,
        rest.created_at,
        rest.tally,
    )


def test_a_task_of_its_own_knows_its_batch() -> None:
    """And what was tried."""
    items = items_of(batch(0, traceparent="00-1-2-00"))
    begun = Begun(progress=Progress(sent=1))
    task = items.task(plan(), 0, CREATED_AT, begun)
    assert (BATCH_ID, plan(), begun, {"n": 0}, "00-1-2-00") == (
        task.batch,
        task.plan,
        task.begun,
        task.payload,
        task.traceparent,
    )


def test_a_deadline_that_was_asked_for_counts_from_the_start_of_the_batch() -> None:
    """One that was not counts from the item's first attempt."""
    plans = (BatchPlan(plan=plan(deadline=60), strict=True), BatchPlan(plan=plan(deadline=60)))
    items = items_of(batch(0, 1, plans=plans))
    soon, late = CREATED_AT + timedelta(seconds=20), CREATED_AT + timedelta(seconds=90)
    tasks = [items.task(plan(deadline=60), *at) for at in ((0, soon), (0, late), (1, late))]
    assert [60, 60, 60] == [each.plan.deadline for each in tasks if each.plan]
    assert [20, 90, 0] == [each.waited for each in tasks]


def test_the_plan_of_an_item_is_led_by_the_agent_that_was_called() -> None:
    """Be it the first one or a fallback."""
    entry = BatchPlan(plan=plan(fallbacks=(SECOND,)))
    items = items_of(batch(0, 1, plans=(BatchPlan(plan=plan()), entry)))
    assert [items.plan_of(1, AGENT), items.plan_of(1, "second")] == [
        entry.plan,
        led_by(entry.plan, 1),
    ]


def test_a_report_of_an_unknown_agent_has_no_plan() -> None:
    """Whoever sent it."""
    assert items_of(batch(0)).plan_of(0, "nobody") is None


def of_agent(name: str, **fields: Any) -> BatchPlan:
    """A plan for another agent."""
    return BatchPlan(plan=plan(agent=name, priority=fields.pop("priority", 3)), **fields)


def test_no_agent_holds_up_another() -> None:
    """However much waits for it, and however long its chunks take."""
    count = batch_lanes.CHUNKS_OF_AGENT + 2
    first = [0] * batch_lanes.CHUNK_ITEMS * count
    items = items_of(batch(*first, 1, 2, plans=tuple(map(of_agent, ("slow", "well", "third")))))
    chunks = [chosen for chosen, _ in taken(items)]
    assert [0, 1, 2] == chunks[:3]
    assert batch_items.CHUNKS_AT_ONCE == len(chunks)


def test_each_of_many_agents_has_a_chunk_under_way() -> None:
    """Also when others have used up what all may have together."""
    count = batch_items.CHUNKS_AT_ONCE + 3
    plans = tuple(of_agent(f"agent-{number}") for number in range(count))
    assert count == len(taken(items_of(batch(*range(count), plans=plans))))


def test_what_must_go_on_alone_holds_back_only_its_own_agent() -> None:
    """Until it has been begun."""
    plans = (of_agent("failing"), of_agent("well"))
    many = [0] * (batch_lanes.CHUNK_ITEMS + 1)
    items = items_of(batch(*many, 1, plans=plans))
    chosen, entry, positions = items.next_chunk() or (0, plans[0], ())
    for position in positions:
        items.go_on(chosen, entry.plan, unfinished(position))
    assert [1] == [each for each, _ in taken(items)]
    while items.next_alone():
        pass
    assert [0] == [each for each, _ in taken(items)]


def test_items_that_are_tasks_of_their_own_leave_room_for_other_agents() -> None:
    """An agent has only so many at once."""
    most = batch_lanes.SINGLES_OF_AGENT
    plans = (of_agent("stuck", alone=True), of_agent("well", alone=True))
    items = items_of(batch(*[0] * (most + 5), 1, plans=plans))
    begun = []
    while found := items.next_alone():
        begun.append(found[0].agent)
    assert {"stuck": most, "well": 1} == dict(Counter(begun))
    assert most + 1 == items.singles
    items.end(0, TaskState.COMPLETED)
    found = items.next_alone()
    assert "stuck" == (found and found[0].agent)


def test_a_metered_agent_gets_small_chunks_one_by_one() -> None:
    """No more than it takes while a chunk begins calls."""
    items = items_of(batch(*[0] * 50, plans=(BatchPlan(plan=plan(), pace=100.0),)))
    found = items.next_chunk()
    assert 17 == len(found[2] if found else ())
    assert items.next_chunk() is None
    items.chunk_ended(0)
    assert items.next_chunk() is not None


def test_a_limit_that_refuses_nobody_changes_nothing() -> None:
    """Chunks are as large, and as many, as without one."""
    count = batch_lanes.CHUNKS_OF_AGENT + 1
    many = [0] * batch_lanes.CHUNK_ITEMS * count
    items = items_of(batch(*many, plans=(BatchPlan(plan=plan(), pace=1_000_000.0),)))
    sizes = [len(positions) for _, positions in taken(items)]
    assert [batch_lanes.CHUNK_ITEMS] * batch_lanes.CHUNKS_OF_AGENT == sizes


def test_the_rest_fits_into_one_input_however_much_was_said() -> None:
    """What attempts said is not handed on."""
    attempt = Attempt(
        attempt=1, agent=AGENT, instance=None, outcome="AgentFailed", seconds=1, error="e" * 300
    )
    count = 8 * batch_lanes.CHUNK_ITEMS
    item = f'{{"pattern":"read","payload":{{"n":"{"x" * 800}"}}}}'
    given = batch(*[0] * count).model_copy(update={"items": (item,) * count})
    items = items_of(given)
    for chosen, positions in taken(items):
        for position in positions:
            progress = Progress(sent=1, made=1, attempts=(attempt,))
            items.go_on(chosen, plan(), Unfinished(position=position, progress=progress, pause=1.5))
    rest = items.rest()
    assert count == len(rest.unfinished)
    assert len(to_json(rest)) < 1_900_000
