"""Reading batches: arrays and lines, with every mistake told."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from api import batch_bodies
from api.batch_bodies import all_good, check_receivers, some_good, take_in
from api.requests import batch_id_for
from orchestrator.addresses import ReceiverPolicy
from orchestrator.batches import place_of
from orchestrator.batching import Intake
from orchestrator.config import Agent, Instance, Rule, Settings
from orchestrator.errors import BatchRefused, CallbackRefused, PayloadTooLarge
from orchestrator.receivers import Receivers, SubmissionGuard
from orchestrator.routing import Routes
from tests.unit.api.test_requests import request

MAX_BYTES = 100_000
ROUTES = Routes(
    Settings(
        agents={"reader": Agent(instances=(Instance(url="http://reader"),))},
        routing_rules=(Rule(pattern="read", target_agent="reader", endpoint="/read"),),
    )
)
LINES = "application/x-ndjson"


def item(number: int, **fields: Any) -> dict[str, Any]:
    """A good item."""
    return {"pattern": "read", "payload": {"n": number, "text": "Grüße\n"}, **fields}


async def taken(body: bytes | str, content_type: str | None = None) -> Intake:
    """What is taken in of a body."""
    return (await taken_and_digest(body, content_type))[0]


async def taken_and_digest(
    body: bytes | str, content_type: str | None = None
) -> tuple[Intake, str | None]:
    """What is taken in of a body, and its fingerprint."""
    intake = Intake(ROUTES, 10_000)
    headers = {"Content-Type": content_type} if content_type else {}
    raw = body.encode() if isinstance(body, str) else body
    return intake, await take_in(request(raw, headers), intake, MAX_BYTES, fingerprinted=True)


def lines(*items: Any, end: str = "\n") -> str:
    """One item a line."""
    return "".join(json.dumps(each) + end for each in items)


def numbers(intake: Intake) -> list[int]:
    """The items that were taken, in their order."""
    return [json.loads(text)["payload"]["n"] for text in intake._items]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (None, json.dumps([item(n) for n in range(3)])),
        ("application/json; charset=utf-8", json.dumps([item(n) for n in range(3)], indent=2)),
        (LINES, lines(*(item(n) for n in range(3)))),
        ("application/jsonl", lines(*(item(n) for n in range(3)), end="\r\n")),
        (LINES, "\ufeff" + lines(*(item(n) for n in range(3)))),
        (None, "\ufeff" + json.dumps([item(n) for n in range(3)])),
        (LINES, "\n \n" + lines(*(item(n) for n in range(3)), end="\n\n").rstrip()),
    ],
)
async def test_items_are_taken_in_their_order(content_type: str | None, body: str) -> None:
    """However they are written; empty lines are none."""
    intake = await taken(body, content_type)
    assert ([0, 1, 2], 0) == (numbers(intake), intake.bad_items)


async def test_the_fingerprint_is_that_of_the_items() -> None:
    """Not of how they are written; and it is made only if it is wanted."""
    _, first = await taken_and_digest(json.dumps([item(0), item(1)]))
    turned = [dict(reversed(item(0).items())), item(1)]
    _, same = await taken_and_digest(lines(*turned), LINES)
    _, other = await taken_and_digest(json.dumps([item(1), item(0)]))
    none = await take_in(request(b"[{}]"), Intake(ROUTES, 10_000), MAX_BYTES)

    assert first == same
    assert first != other
    assert none is None


async def test_lines_that_are_no_json_are_named() -> None:
    """By their number in the body, beside the index among the items."""
    intake = await taken("\n".join(['{"pattern"', "", "NaN", json.dumps(item(7))]), LINES)

    assert [0, 1] == [each.index for each in intake.bad]
    assert "line 1 is not JSON: " == intake.bad[0].message[:20]
    assert "line 3 is not JSON: " == intake.bad[1].message[:20]
    assert [7] == numbers(intake)


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        ("[]", None, "The batch is empty"),
        (" \n\n", LINES, "The batch is empty"),
        ("{}", None, "The body is an object; send a JSON array"),
        ("null", None, "The body is null; send a JSON array"),
        ("[", None, "The body is not JSON"),
        ('[{"payload": {"n": 1e999}}]', None, "The body is not JSON"),
        ("", None, "The body is not JSON"),
    ],
)
async def test_what_is_no_batch_is_told(body: str, content_type: str | None, words: str) -> None:
    """With 422."""
    with pytest.raises(HTTPException) as caught:
        await taken(body, content_type)
    assert 422 == caught.value.status_code
    assert words in caught.value.detail


async def test_other_content_types_are_refused() -> None:
    """415 says what to send."""
    with pytest.raises(HTTPException) as caught:
        await taken("[]", "text/csv")
    expected = (
        "Content-Type is text/csv; send application/json or application/x-ndjson or "
        "application/jsonl"
    )
    assert (415, expected) == (caught.value.status_code, caught.value.detail)


@pytest.mark.parametrize("content_type", [None, LINES])
async def test_items_are_counted(content_type: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a batch may have are refused; as many are not."""
    monkeypatch.setattr(batch_bodies, "MAX_ITEMS", 3)
    write = (lambda items: lines(*items)) if content_type else json.dumps

    intake = await taken(write([item(n) for n in range(3)]), content_type)
    with pytest.raises(HTTPException, match="at most 3 items") as caught:
        await taken(write([item(n) for n in range(4)]), content_type)

    assert ([0, 1, 2], 422) == (numbers(intake), caught.value.status_code)


async def test_the_body_has_a_size() -> None:
    """As that of a task."""
    with pytest.raises(PayloadTooLarge):
        await taken(" " * (MAX_BYTES + 1))


async def test_nothing_goes_on_with_a_bad_item() -> None:
    """Unless the good ones are enough, and there are any."""
    good = await taken(json.dumps([item(0)]))
    mixed = await taken(json.dumps([item(0), item(1, priority=9), item(2, timeout=0)]))
    bad = await taken(json.dumps([item(1, priority=9)]))

    all_good(good)
    some_good(good)
    some_good(mixed)
    with pytest.raises(BatchRefused) as caught:
        all_good(mixed)
    with pytest.raises(BatchRefused):
        some_good(bad)

    assert (2, [1, 2]) == (caught.value.bad_items, [each.index for each in caught.value.bad])
    assert (
        "2 of 3 items are wrong, and nothing was started; the first is item 1: priority: "
        "Input should be less than or equal to 5"
    ) == str(caught.value)


def test_a_key_stands_for_one_batch() -> None:
    """For these tenants; without a key each is another. All have room for their items' places."""
    first = batch_id_for("key", ["b", "a"])

    assert first == batch_id_for("key", {"a", "b"})
    others = {
        batch_id_for("key", ["a"]),
        batch_id_for("other", ["a", "b"]),
        batch_id_for(None, ["a"]),
        batch_id_for(None, ["a"]),
    }
    assert 4 == len(others - {first})
    for each in {first, *others}:
        assert each[-4:] == "0000"
        assert (each, 0) == place_of(f"{each[:-4]}0001")


async def with_receivers(*hosts: str, partial: bool) -> Intake:
    """A batch with an item for each receiver, and what is left of it; ``bad`` ones lead inside."""

    async def resolve(host: str, _: int) -> Sequence[str]:
        return ["10.0.0.1"] if host.startswith("bad") else ["8.8.8.8"]

    guard = SubmissionGuard(Receivers(ReceiverPolicy(), resolve))
    intake = Intake(ROUTES, 10_000, guard.read)
    for number, host in enumerate(hosts):
        intake.offer(item(number, callback_url=f"https://{host}.example/hook"))
    await check_receivers(intake, guard, partial=partial)
    return intake


async def test_of_a_partial_batch_only_items_whose_receivers_lead_inside_are_refused() -> None:
    """All of them that share a host, each with its number and the reason."""
    intake = await with_receivers("good", "bad", "fine", "bad", partial=True)
    assert [0, 2] == numbers(intake)
    assert (4, 2) == (intake.seen, intake.bad_items)
    assert [1, 3] == [each.index for each in intake.bad]
    assert all("leads to 'bad.example'" in each.message for each in intake.bad)


async def test_a_batch_whose_every_receiver_leads_inside_is_none() -> None:
    """Partial or not."""
    with pytest.raises(BatchRefused, match="2 of 2 items are wrong"):
        await with_receivers("bad", "bad2", partial=True)
    with pytest.raises(CallbackRefused, match="item 1: callback_url: leads to"):
        await with_receivers("good", "bad", partial=False)
