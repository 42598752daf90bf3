"""After the faults: everything that was accepted has to come to its end, and is read once more.

The stuck detector: when nothing changes for minutes though all is well, what is open is told.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.chaos import publishing
from tests.chaos.ledger import FINAL, Item, Ledger
from tests.chaos.patience import Patient, Stuck
from tests.chaos.stage import Stage

STUCK_SECONDS = 240.0
AT_ONCE = 12
PAUSE_SECONDS = 0.5
SHOWN = 10
CALLBACK_ENDS = frozenset({"delivered", "dead", "discarded"})


@dataclass
class Settled:
    """What the product says when all is over."""

    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    dead_letters: set[str] = field(default_factory=set)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    batch_items: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    aggregates: dict[str, dict[str, Any]] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    buried: set[str] = field(default_factory=set)


async def settle(stage: Stage, ledger: Ledger, patient: Patient) -> Settled:
    """Wait until everything has ended, and read it all.

    Raises:
        Stuck: nothing changed for minutes; it says what is open.
    """
    found = Settled()
    await _until_none("messages in the broker", lambda: _messages(stage))
    for item in [each for each in ledger.items.values() if each.source == "message"]:
        await _find(item, ledger, patient)
    await _until_none("open batches", lambda: _open_batches(ledger, patient, found))
    for batch_id in ledger.batches:
        await _read_items(batch_id, ledger, patient, found)
    await _until_none("open aggregates", lambda: _open_aggregates(ledger, patient, found))
    await _until_none("open tasks", lambda: _open_tasks(ledger, patient))
    await _until_none("open callbacks", lambda: _open_callbacks(ledger, patient, found))
    await _each(ledger.by_id.values(), lambda item: _read(item, ledger, patient, found))
    # The lists of the engine follow within moments.
    await _until_none("dead letters to be listed", lambda: _letters(ledger, patient, found))
    found.listed = {each["task_id"] for each in await _pages(patient, "/tasks", "tasks")}
    found.buried = await _buried(stage, ledger)
    return found


async def _until_none(what: str, look: Callable[[], Awaitable[list[str]]]) -> None:
    """Look until nothing is open; stuck when the same is open for minutes."""
    last, since = list[str](), time.monotonic()
    while left := await look():
        if left != last:
            last, since = left, time.monotonic()
        if time.monotonic() - since > STUCK_SECONDS:
            some = "\n  ".join(left[:SHOWN])
            raise Stuck(f"{len(left)} {what} for {STUCK_SECONDS:g} s, nothing changes:\n  {some}")
        await asyncio.sleep(PAUSE_SECONDS)


async def _each(items: Iterable[Any], work: Callable[[Any], Awaitable[None]]) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> None:
        async with turn:
            await work(item)

    await asyncio.gather(*(one(each) for each in items))


async def look(patient: Patient, ledger: Ledger, item: Item) -> dict[str, Any] | None:
    """Read a task's status and compare it to what was seen before; None if it is not known."""
    epoch = item.epoch
    answer = await patient.ask("GET", f"/status/{item.task_id}")
    if answer.status_code != HTTPStatus.OK:
        ledger.violate("I1", f"{item.task_id} was accepted, and then {answer.text[:200]}")
        return None
    status = dict(answer.json())
    ledger.seen(item, status, epoch)
    return status


async def _messages(stage: Stage) -> list[str]:
    with contextlib.suppress(*publishing.TROUBLES):
        count = await publishing.left(stage)
        return [f"{count} messages"] if count else []
    return [f"the broker does not answer at {time.monotonic():.0f}"]


async def _find(item: Item, ledger: Ledger, patient: Patient) -> None:
    """The task of a message is what HTTP finds by its id; a new one means that it was lost."""
    answer = await patient.ask("POST", "/orchestrate", item.body(), Idempotency_Key=item.key or "")
    if answer.status_code not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
        ledger.violate("I1", f"message {item.key} is no task: {answer.text[:200]}")
        return
    if answer.headers.get("Idempotency-Replayed") != "true":
        ledger.violate("I1", f"message {item.key} was taken, and became no task")
    ledger.accepted(item, answer.json()["task_id"])


async def _open_batches(ledger: Ledger, patient: Patient, found: Settled) -> list[str]:
    for batch_id in ledger.batches.keys() - found.batches.keys():
        answer = await patient.ask("GET", f"/batches/{batch_id}")
        status = dict(answer.json())
        if status.get("status") in FINAL:
            found.batches[batch_id] = status
        else:
            ledger.operations["looks at open batches"] += 1
    return sorted(ledger.batches.keys() - found.batches.keys())


async def _read_items(batch_id: str, ledger: Ledger, patient: Patient, found: Settled) -> None:
    """The tasks of a batch, in the order in which they were handed in."""
    answer = await patient.ask("GET", f"/batches/{batch_id}/results?limit=10000")
    if not answer.is_success:
        ledger.violate("I1", f"the results of batch {batch_id} cannot be read: {answer.text[:200]}")
        return
    lines = [json.loads(line) for line in answer.text.splitlines()]
    found.batch_items[batch_id] = lines
    for item, line in zip(ledger.batches[batch_id], lines, strict=False):
        ledger.accepted(item, line["task_id"])


async def _open_aggregates(ledger: Ledger, patient: Patient, found: Settled) -> list[str]:
    for aggregate_id in ledger.aggregates.keys() - found.aggregates.keys():
        answer = await patient.ask("GET", f"/aggregate/{aggregate_id}", Prefer="wait=0")
        document = dict(answer.json())
        if document.get("status") in FINAL:
            found.aggregates[aggregate_id] = document
    return sorted(ledger.aggregates.keys() - found.aggregates.keys())


async def _open_tasks(ledger: Ledger, patient: Patient) -> list[str]:
    shown = dict[str, str]()

    async def one(item: Item) -> None:
        status = await look(patient, ledger, item)
        shown[str(item.task_id)] = json.dumps(status)[:600]

    await _each(ledger.open_items(), one)
    return [shown.get(str(each.task_id), "") for each in ledger.open_items()]


async def _open_callbacks(ledger: Ledger, patient: Patient, found: Settled) -> list[str]:
    left = list[str]()

    async def one(item: Item) -> None:
        answer = await patient.ask("GET", f"/callbacks/{item.task_id}")
        callback = dict(answer.json()) if answer.is_success else {"status": answer.text[:100]}
        if callback["status"] in CALLBACK_ENDS:
            found.callbacks[str(item.task_id)] = callback
        else:
            left.append(f"{item.task_id}: {json.dumps(callback)[:300]}")

    known = (each for each in ledger.by_id.values() if each.callback_url)
    await _each([each for each in known if each.task_id not in found.callbacks], one)
    return sorted(left)


async def _read(item: Item, ledger: Ledger, patient: Patient, found: Settled) -> None:
    status = await look(patient, ledger, item)
    if status is not None and item.task_id:
        found.statuses[item.task_id] = status


async def _letters(ledger: Ledger, patient: Patient, found: Settled) -> list[str]:
    """Those that a status names and the list does not have, or the other way round."""
    listed = await _pages(patient, "/dead-letters", "dead_letters")
    found.dead_letters = {each["task_id"] for each in listed}
    # The status of a task that was given up goes on saying that it was one.
    named = {
        task_id
        for task_id, each in found.statuses.items()
        if each.get("dead_letter") and not ledger.by_id[task_id].discarded
    }
    return sorted(named ^ found.dead_letters)


async def _pages(patient: Patient, path: str, name: str) -> list[dict[str, Any]]:
    listed, cursor = list[dict[str, Any]](), ""
    while True:
        page = (await patient.ask("GET", f"{path}?limit=500{cursor}")).json()
        listed += page[name]
        if not page["next_cursor"]:
            return listed
        cursor = f"&cursor={page['next_cursor']}"


async def _buried(stage: Stage, ledger: Ledger) -> set[str]:
    for _ in range(int(STUCK_SECONDS)):
        with contextlib.suppress(*publishing.TROUBLES):
            found = await publishing.buried(stage)
            if found >= ledger.poison:
                return found
        await asyncio.sleep(1)
    with contextlib.suppress(*publishing.TROUBLES):
        return await publishing.buried(stage)
    return set()
