"""From requests to what a batch's workflows start with."""

import json
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.batches import PART_BYTES, Batch, batch_id_of
from orchestrator.batching import MAX_ITEM_BYTES, MAX_LISTED, Intake
from orchestrator.config import Agent, AgentRateLimit, Instance, Rule, Settings
from orchestrator.engine.converter import MAX_BLOB_BYTES, data_converter
from orchestrator.models import Dispatch, LimitMode, RateLimit, TaskRequest
from orchestrator.routing import Routes

BATCH_ID = batch_id_of(uuid.UUID(int=7))
NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
MAX_BYTES = 1_950_000


def routes() -> Routes:
    """Two agents; ``fast`` is called inline elsewhere, ``once`` is not idempotent."""
    agents = {
        name: Agent(
            instances=(Instance(url=f"http://{name}"),),
            capabilities=(name,),
            idempotent=name != "once",
            rate_limit=AgentRateLimit(rate=60, mode=LimitMode.QUEUE)
            if name == "metered"
            else AgentRateLimit(),
        )
        for name in ("reader", "once", "metered")
    }
    rules = (
        Rule(pattern="read", target_agent="reader", endpoint="/read"),
        Rule(pattern="fast", target_agent="reader", endpoint="/f", dispatch=Dispatch.INLINE),
        Rule(pattern="read_*", target_agent="reader", endpoint="/read"),
        Rule(pattern="once", target_agent="once", endpoint="/once"),
        Rule(pattern="safe", target_agent="reader", endpoint="/s", fallback_agents=("once",)),
        Rule(pattern="metered", target_agent="metered", endpoint="/m"),
    )
    return Routes(Settings(agents=agents, routing_rules=rules))


def taken(*items: Any, max_bytes: int = MAX_BYTES) -> Intake:
    """An intake that was offered these items."""
    intake = Intake(routes(), max_bytes)
    for each in items:
        intake.offer(each)
    return intake


def read(number: int = 0, **fields: Any) -> dict[str, Any]:
    """A good item."""
    return {"pattern": "read", "payload": {"n": number}, **fields}


def limits(**modes: LimitMode) -> Callable[[str], RateLimit | None]:
    """A limit of 60 calls a minute, of that mode, for each of the agents."""
    found = {agent: RateLimit(rate=60, burst=5, mode=mode) for agent, mode in modes.items()}
    return found.get


METERED = limits(metered=LimitMode.QUEUE)


def parts(
    intake: Intake, limit_of: Callable[[str], RateLimit | None] = METERED
) -> tuple[Batch, ...]:
    """Its parts by its own plans."""
    return intake.parts(BATCH_ID, intake.plans, limit_of, NOW, "00-trace")


def contents(found: Iterable[Batch]) -> list[tuple[int, str, str]]:
    """Position, request and agent's endpoint of each item, in the order of the parts."""
    return [
        (batch.first + offset, item, batch.plans[chosen].plan.endpoint)
        for batch in found
        for offset, (item, chosen) in enumerate(zip(batch.items, batch.chosen, strict=True))
    ]


def test_items_travel_as_they_were_asked_for() -> None:
    """As compact JSON of the fields that were given, in their order."""
    first = read(1, metadata={"é": [None, 1.5, True]}, callback_url="https://example.org/")
    second = {"capabilities": ["reader"], "payload": {}, "priority": 5, "tenant": "acme"}
    [batch] = parts(taken(first, second))

    assert [first, second] == [json.loads(each) for each in batch.items]
    assert '{"pattern":"read","payload":{"n":1}' == batch.items[0][:35]
    assert (BATCH_ID, 0, 0, (0,), "00-trace", NOW, None, None) == (
        batch.batch_id,
        batch.first,
        batch.part,
        batch.starts,
        batch.traceparent,
        batch.created_at,
        batch.positions,
        batch.tasks,
    )


def test_plans_are_shared() -> None:
    """By all that are routed alike on behalf of one tenant; the rest is how they differ."""
    same = taken(*(read(number) for number in range(50)), read(), {**read(), "metadata": {"a": 1}})
    globs = taken(*({"pattern": f"read_{number}", "payload": {}} for number in range(50)))
    others = taken(read(), read(priority=5), read(tenant="acme"), read(timeout=7), read(timeout=8))

    assert [1, 1, 5] == [len(each.plans) for each in (same, globs, others)]
    assert [0] * 50 == list(parts(globs)[0].chosen)
    assert {"default", "acme"} == others.tenants
    assert [False, False, False, True, True] == [each.strict for each in parts(others)[0].plans]
    assert [7, 8] == [each.plan.deadline for each in parts(others)[0].plans[3:]]
    assert {"reader": 5} == others.agents(others.plans)


def test_a_deadline_that_was_asked_for_is_strict_even_if_it_is_the_usual_one() -> None:
    """So these two do not share."""
    usual = taken(read()).plans[0].deadline
    [batch] = parts(taken(read(), read(timeout=usual)))
    assert [False, True] == [each.strict for each in batch.plans]


@pytest.mark.parametrize(
    ("pattern", "alone"),
    [("read", False), ("fast", False), ("once", True), ("safe", True), ("metered", True)],
)
def test_some_go_alone(pattern: str, alone: bool) -> None:  # noqa: FBT001 - pytest names it
    """What must not be called twice, or is paced by its queue; and none passes by the queue."""
    [batch] = parts(taken({"pattern": pattern, "payload": {}}))
    [entry] = batch.plans
    assert (alone, Dispatch.QUEUED) == (entry.alone, entry.plan.dispatch)


def test_the_limits_in_force_decide_who_is_metered() -> None:
    """Not those of the configuration."""
    given = taken(read(), {"pattern": "metered", "payload": {}})
    [batch] = parts(given, limits(reader=LimitMode.QUEUE))
    assert [True, False] == [each.alone for each in batch.plans]


def test_the_pace_of_a_limited_agent_is_told() -> None:
    """So that its chunks are no larger than what it takes."""
    given = taken(read(), {"pattern": "metered", "payload": {}})
    [batch] = parts(given, limits(reader=LimitMode.REJECT))
    assert [(False, 60.0), (False, None)] == [(each.alone, each.pace) for each in batch.plans]


def test_admission_may_change_the_plans() -> None:
    """The items go by what it gave back."""
    intake = taken(read(), {"pattern": "once", "payload": {}}, read())
    other = intake.plans[0].model_copy(update={"endpoint": "/spare", "agent": "spare"})
    [batch] = intake.parts(BATCH_ID, [other, intake.plans[1]], limits(), NOW)

    assert ["/spare", "/once", "/spare"] == [each[2] for each in contents([batch])]
    assert {"spare": 2, "once": 1} == intake.agents([other, intake.plans[1]])


@pytest.mark.parametrize(
    ("item", "field", "words"),
    [
        (read(priority=9), "priority", "less than or equal to 5"),
        (read(prioritty=3), "prioritty", "Extra inputs are not permitted"),
        ({"pattern": "read"}, "payload", "Field required"),
        ({"payload": {}}, None, "name a pattern, or the capabilities"),
        ({"pattern": "raed", "payload": {}}, "pattern", "did you mean 'read'"),
        ({"capabilities": ["magic"], "payload": {}}, "capabilities", "No agent has all of: magic"),
        ([], None, "valid dictionary"),
        (None, None, "valid dictionary"),
    ],
)
def test_each_mistake_is_told(item: Any, field: str | None, words: str) -> None:
    """With the item's index among all, and the good ones are taken."""
    intake = taken(read(0), item, read(2))

    [bad] = intake.bad
    assert (1, field) == (bad.index, bad.field)
    assert words in bad.message
    assert (3, 2, 1) == (intake.seen, intake.taken, intake.bad_items)
    assert [0, 2] == [json.loads(each)["payload"]["n"] for each in parts(intake)[0].items]


def test_all_mistakes_of_an_item_are_told() -> None:
    """In one go, and it is one bad item."""
    intake = taken({"pattern": "read", "payload": [], "priority": 0, "timeout": -1})
    assert {"payload", "priority", "timeout"} == {each.field for each in intake.bad}
    assert (1, 0) == (intake.bad_items, intake.taken)


def test_so_many_mistakes_are_listed_and_all_are_counted() -> None:
    """The list is bounded, whoever makes them."""
    many = taken(*([read(priority=9, timeout=-1)] * MAX_LISTED), read())
    one = taken(read(**{f"x{number}": 1 for number in range(2 * MAX_LISTED)}))
    assert (MAX_LISTED, MAX_LISTED, 1) == (len(many.bad), many.bad_items, many.taken)
    assert (MAX_LISTED, 1) == (len(one.bad), one.bad_items)


def test_what_cannot_be_read_counts_as_an_item() -> None:
    """Its index is its own."""
    intake = taken(read())
    intake.refuse("line 2 is not JSON")
    intake.offer(read(priority=9))
    assert [(1, None, "line 2 is not JSON"), (2, "priority")] == [
        (intake.bad[0].index, intake.bad[0].field, intake.bad[0].message),
        (intake.bad[1].index, intake.bad[1].field),
    ]


def test_an_item_has_a_size() -> None:
    """The one of the configuration, and the one that fits into the engine when written twice."""
    small = taken(read(text="x"), read(), max_bytes=1024)
    large = taken({"pattern": "read", "payload": {"text": "x" * 2000}}, max_bytes=1024)
    quotes = taken({"pattern": "read", "payload": {"text": '"' * 700_000}})
    plain = taken({"pattern": "read", "payload": {"text": "x" * 1_850_000}})

    assert (1, 1) == (small.bad_items, small.taken)
    assert "at most 1,024 are accepted" in large.bad[0].message
    assert f"at most {MAX_ITEM_BYTES:,} are accepted" in quotes.bad[0].message
    assert (1, 0) == (plain.taken, plain.bad_items)
    assert [] == quotes.plans


def test_large_batches_come_in_parts() -> None:
    """Each fits into the engine, and all together are the batch."""
    texts = ["x" * 400_000, '"' * 250_000, "é" * 200_000, "x" * 1_800_000, "small"]
    items = [
        {"pattern": pattern, "payload": {"text": text}}
        for text in texts
        for pattern in ("read", "once")
    ]
    found = parts(taken(*items))

    assert len(found) > 3
    assert list(range(len(found))) == [each.part for each in found]
    assert {tuple(each.first for each in found)} == {each.starts for each in found}
    assert [(n, item["payload"]) for n, item in enumerate(items)] == [
        (position, json.loads(text)["payload"]) for position, text, _ in contents(found)
    ]
    assert [f"/{item['pattern']}" for item in items] == [each[2] for each in contents(found)]
    for each in found:
        assert len(encoded(each)) < MAX_BLOB_BYTES


def test_many_different_plans_come_in_parts_too() -> None:
    """Each part has those that it needs."""
    found = parts(taken(*(read(number, timeout=number + 1) for number in range(6000))))

    assert len(found) > 1
    for each in found:
        assert len(encoded(each)) < MAX_BLOB_BYTES
        assert len(each.items) == len(each.plans)
    assert [number + 1 for number in range(6000)] == [
        batch.plans[chosen].plan.deadline for batch in found for chosen in batch.chosen
    ]


def test_plans_that_several_parts_need_count_in_each() -> None:
    """However many they are."""
    items = [
        {"pattern": "read", "payload": {"text": "x" * 400}, "timeout": number % 1000 + 1}
        for number in range(8000)
    ]
    found = parts(taken(*items))

    assert 1000 == len(found[1].plans)
    for each in found:
        assert len(encoded(each)) < 1.02 * PART_BYTES


def test_nothing_makes_no_part() -> None:
    """There is nothing to start."""
    assert () == parts(taken())


def encoded(batch: Batch) -> bytes:
    """As the engine gets it."""
    [payload] = data_converter.payload_converter.to_payloads([batch])
    return payload.data


payloads = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            TaskRequest,
            pattern=st.sampled_from(["read", "read_more", "once", "safe"]),
            payload=payloads,
            priority=st.none() | st.integers(1, 5),
            timeout=st.none() | st.sampled_from([1.0, 3600.0]),
            tenant=st.sampled_from(["default", "acme"]),
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(500, 5000),
)
def test_every_item_gets_what_it_would_get_alone(
    requests: list[TaskRequest], part_bytes: int
) -> None:
    """Request and plan, whatever is shared and wherever the parts are cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.batching.PART_BYTES", part_bytes)
        intake = Intake(routes(), MAX_BYTES)
        for request in requests:
            intake.add(request)
        found = parts(intake)

    alone = routes()
    pairs = [
        (TaskRequest.model_validate_json(item), batch.plans[chosen])
        for batch in found
        for item, chosen in zip(batch.items, batch.chosen, strict=True)
    ]
    assert requests == [request for request, _ in pairs]
    assert [
        (alone.plan(request).model_copy(update={"dispatch": "queued"}), request.timeout is not None)
        for request in requests
    ] == [(entry.plan, entry.strict) for _, entry in pairs]
    firsts = [each.first for each in found]
    assert firsts == [sum(len(b.items) for b in found[:part]) for part in range(len(found))]
    for batch in found:
        assert len(batch.items) == 1 or sum(map(len, batch.items)) <= min(part_bytes, PART_BYTES)
        assert len(batch.plans) == len(set(batch.chosen))


def test_items_are_withdrawn_by_their_numbers() -> None:
    """What was refused before them counts too; the others stay as they were."""
    intake = taken(read(0), {"pattern": "nonsense", "payload": {}}, read(2), read(3, tenant="b"))
    intake.withdraw({2: "leads to a private address"})
    [part] = intake.parts("batch", intake.plans, lambda _: None, NOW)
    assert [0, 3] == [json.loads(each)["payload"]["n"] for each in part.items]
    assert ["default", "b"] == [part.plans[chosen].tenant for chosen in part.chosen]
    assert [(1, "pattern"), (2, "callback_url")] == [
        (each.index, each.field) for each in intake.bad
    ]
    assert (4, 2, 2) == (intake.seen, intake.taken, intake.bad_items)
