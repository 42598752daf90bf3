"""The random program: what clients do, by chance of the seed."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from random import Random

from tests.chaos import publishing
from tests.chaos.ledger import Item, Ledger
from tests.chaos.patience import Patient
from tests.chaos.replies import AGAIN, FOR_GOOD, Kind
from tests.chaos.stage import HOPELESS_SECONDS, MAX_RETRIES, Stage
from tests.support.stack import eventually

LARGE_BYTES = (1_890_000, 2_200_000, 3_900_000, 5_000_000)
CALL_BEGINS_SECONDS = 60.0
READS = ("/tasks", "/agents", "/health", "/metrics", "/dead-letters", "/batches", "/callbacks")


class Client:
    """One client; its chance is the seed's and its number's."""

    def __init__(self, stage: Stage, ledger: Ledger, patient: Patient, random: Random) -> None:
        self.stage = stage
        self.ledger = ledger
        self.patient = patient
        self.random = random

    async def run(self, until: float) -> None:
        """Do one thing after another until the clock says so."""
        chosen = {
            name: weight
            for name, weight in _WEIGHTS.items()
            if self.stage.broker is not None or "message" not in name
        }
        names, weights = list(chosen), list(chosen.values())
        while time.monotonic() < until:
            [name] = self.random.choices(names, weights)
            await _OPERATIONS[name](self)
            self.ledger.operations[name] += 1
            await asyncio.sleep(self.random.uniform(0.05, 0.6))

    def new(self, source: str = "single") -> Item:
        """A task that nobody has handed in yet."""
        patterns = ("queued", "inline", "coalesced", "once", "metered", "falls back", "tls")
        [pattern] = self.random.choices(patterns, (8, 5, 5, 2, 2, 1, 0.3))
        item = self.ledger.add(pattern, self._replies(pattern), source=source)
        item.key = self._uuid()
        if pattern in {"tls", "falls back"}:
            item.timeout = HOPELESS_SECONDS
        if self.random.random() < 0.3:
            item.callback_url = self.stage.receiver.url(item.number)
        return item

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _replies(self, pattern: str) -> list[str]:
        """How its agent answers: mostly well, or after some failures, or not at all."""
        chance = self.random.random()
        some = self.random.choices(AGAIN, k=MAX_RETRIES + 1)
        if chance < 0.55 or pattern == "metered":
            return [self.random.choice((Kind.OK, Kind.OK, Kind.SLOW))]
        if chance < 0.65:
            return [Kind.LATER]
        if chance < 0.83:
            return [*some[: self.random.randint(1, 2)], Kind.OK]
        if chance < 0.91:
            return [*some, Kind.OK]
        if chance < 0.985:
            return [self.random.choice(FOR_GOOD)]
        return [Kind.SLAY, Kind.OK]

    async def submit(self, item: Item | None = None) -> Item:
        """Hand a task in, until it is accepted."""
        item = item or self.new()
        answer = await self.patient.ask(
            "POST", "/orchestrate", item.body(), Idempotency_Key=item.key or ""
        )
        if answer.status_code in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
            self.ledger.accepted(item, answer.json()["task_id"])
        else:
            self.ledger.violate("I1", f"task {item.number} was refused: {answer.text[:300]}")
        return item

    async def again(self) -> None:
        """Hand one in many times at once, and later another body under its key."""
        item = self.new()
        await asyncio.gather(*(self.submit(item) for _ in range(self.random.randint(2, 50))))
        other = {**item.body(), "payload": {"number": -1, "replies": [Kind.OK]}}
        answer = await self.patient.ask(
            "POST", "/orchestrate", other, Idempotency_Key=item.key or ""
        )
        if answer.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:
            text = f"another body under the key of {item.task_id}: {answer.status_code}"
            self.ledger.violate("I6", text)

    async def repeat(self) -> None:
        """Hand in once more what was handed in long ago."""
        if item := self._known("single"):
            await self.submit(item)

    def _known(self, *sources: str) -> Item | None:
        known = [
            each
            for each in self.ledger.items.values()
            if each.task_id and (not sources or each.source in sources)
        ]
        return self.random.choice(known) if known else None

    async def cancel(self) -> None:
        """Cancel a task, whatever it does at that moment."""
        if item := self._known():
            await self.patient.ask("POST", f"/tasks/{item.task_id}/cancel")

    async def cancel_call(self) -> None:
        """Cancel a task whose call is in flight."""
        item = self.ledger.add("queued", [Kind.HANG], key=self._uuid())
        await self.submit(item)
        with contextlib.suppress(AssertionError):
            await eventually(lambda: self._called(item), CALL_BEGINS_SECONDS)
        await self.patient.ask("POST", f"/tasks/{item.task_id}/cancel")

    async def _called(self, item: Item) -> bool:
        return bool(self.stage.records.by_number.get(item.number))

    async def prioritise(self) -> None:
        """Change the priority of a task, which may have ended."""
        if item := self._known("single"):
            body = {"priority": self.random.randint(1, 5)}
            await self.patient.ask("POST", f"/tasks/{item.task_id}/priority", body)

    async def redrive(self) -> None:
        """Run a dead letter again, or give it up."""
        answer = await self.patient.ask("GET", "/dead-letters?limit=50")
        letters = [each["task_id"] for each in answer.json().get("dead_letters", ())]
        if not letters:
            return
        task_id = self.random.choice(letters)
        item = self.ledger.by_id.get(task_id)
        if item is None or item.discarded or item.in_doubt:
            return
        if self.random.random() < 0.15:
            item.discarded = True
            await self.patient.ask("POST", f"/dead-letters/{task_id}/discard")
            return

        def sent() -> None:
            item.redriven += 1

        with self.ledger.redriving(item):
            await self.patient.ask("POST", f"/dead-letters/{task_id}/redrive", sent=sent)

    async def batch(self) -> None:
        """Hand many in at once."""
        items = [self.new("batch") for _ in range(self.random.choice((3, 10, 40)))]
        bodies = [each.body() for each in items]
        answer = await self.patient.ask(
            "POST", "/orchestrate/batch", bodies, Idempotency_Key=self._uuid()
        )
        if answer.status_code == HTTPStatus.ACCEPTED:
            self.ledger.batches[answer.json()["batch_id"]] = items
        else:
            self.ledger.violate("I1", f"a batch was refused: {answer.text[:300]}")

    async def aggregate(self) -> None:
        """Join tasks that are there with some that it starts."""
        known = [item.task_id for _ in range(4) if (item := self._known("single"))]
        items = [self.ledger.add("queued", [Kind.OK], source="aggregate") for _ in range(3)]
        body = {"task_ids": known, "tasks": [each.body() for each in items], "deadline": 1800}
        answer = await self.patient.ask(
            "POST", "/aggregate", body, Idempotency_Key=self._uuid(), Prefer="wait=0"
        )
        if answer.status_code in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
            ids = list(dict.fromkeys(each for each in known if each))
            self.ledger.aggregates[answer.json()["aggregate_id"]] = (ids, items)
        else:
            self.ledger.violate("I1", f"an aggregate was refused: {answer.text[:300]}")

    async def large(self) -> None:
        """Hand in what is at and over the size that a task may have: accepted, or 413."""
        item = self.ledger.add("queued", [Kind.OK], key=self._uuid())
        body = item.body()
        body["payload"]["pad"] = "x" * self.random.choice(LARGE_BYTES)
        answer = await self.patient.ask(
            "POST", "/orchestrate", body, Idempotency_Key=item.key or ""
        )
        if answer.status_code == HTTPStatus.ACCEPTED:
            self.ledger.accepted(item, answer.json()["task_id"])
        elif answer.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            self.ledger.violate("I7", f"a large task was answered with {answer.status_code}")
        item.source = "large"

    async def internal_receiver(self) -> None:
        """Name a receiver inside the network: refused."""
        item = self.ledger.add("queued", [Kind.OK], source="refused")
        body = {**item.body(), "callback_url": "http://169.254.169.254/latest"}
        answer = await self.patient.ask("POST", "/orchestrate", body)
        if answer.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:
            self.ledger.violate("I5", f"an internal receiver was not refused: {answer.status_code}")

    async def message(self) -> None:
        """Hand one in through the broker, once or twice."""
        item = self.new("message")
        item.key = f"message-{item.number}"
        for _ in range(self.random.choice((1, 1, 2))):
            await publishing.publish(self.stage, item.body(), item.key)

    async def poison(self) -> None:
        """Send what can never be a task."""
        name = f"poison-{self._uuid()}"
        body = self.random.choice((b"\xff\xfe", b"[", b"{}", b'{"pattern": 7}', b"null"))
        await publishing.publish(self.stage, body, name)
        self.ledger.poison.add(name)

    async def read(self) -> None:
        """Look at what operators look at."""
        await self.patient.ask("GET", self.random.choice(READS))


_OPERATIONS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "submit": Client.submit,
    "same key at once": Client.again,
    "same key later": Client.repeat,
    "cancel": Client.cancel,
    "cancel a call in flight": Client.cancel_call,
    "change priority": Client.prioritise,
    "redrive or discard": Client.redrive,
    "batch": Client.batch,
    "aggregate": Client.aggregate,
    "large task": Client.large,
    "internal receiver": Client.internal_receiver,
    "message": Client.message,
    "poison message": Client.poison,
    "read": Client.read,
}
_WEIGHTS = {
    "submit": 30.0,
    "same key at once": 2.0,
    "same key later": 3.0,
    "cancel": 3.0,
    "cancel a call in flight": 1.5,
    "change priority": 2.0,
    "redrive or discard": 4.0,
    "batch": 2.5,
    "aggregate": 2.0,
    "large task": 0.7,
    "internal receiver": 0.5,
    "message": 5.0,
    "poison message": 1.0,
    "read": 5.0,
}
