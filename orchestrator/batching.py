"""From a batch's requests to what its workflows start with: routed, shared plans, items as text.

Pure. Requests that are routed alike share a plan, which costs far more than looking it up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from orchestrator.addresses import Receiver, ReceiverRefused
from orchestrator.batches import PART_BYTES, BadItem, Batch, BatchPlan
from orchestrator.config import Settings
from orchestrator.errors import PayloadTooLarge, UnknownPattern
from orchestrator.models import Dispatch, LimitMode, Plan, RateLimit, TaskRequest
from orchestrator.routing import Routes
from orchestrator.security.callers import EVERYBODY, Caller

MAX_LISTED = 1000
"""So many mistakes are listed; all are counted."""
MAX_ITEM_BYTES = 1_900_000
"""An item's text within its batch, where quotes and backslashes take two bytes."""

ITEM_OVERHEAD_BYTES = 10
"""Beside an item's text: quotes, a comma, and its place in the table of plans."""
_VALUE_ERROR = "Value error, "
"""What pydantic puts before our own texts."""

_validate = TaskRequest.__pydantic_validator__.validate_python
_to_json = TaskRequest.__pydantic_serializer__.to_json


@dataclass
class Intake:
    """The items of a batch, one by one: taken, or told what is wrong with them.

    Args:
        routes: by which they are routed.
        max_bytes: of one item's request.
        read: a callback's URL, which it may refuse; without it any is taken.
        caller: who hands them in; an item for a tenant that is not theirs raises TenantForbidden.
        max_text_bytes: of one item's text within its batch.
    """

    routes: Routes
    max_bytes: int
    read: Callable[[str], Receiver] | None = None
    receivers: list[tuple[int, Receiver]] = field(default_factory=list)
    """Of the items that were taken and have one, by the item's number."""
    caller: Caller = EVERYBODY
    max_text_bytes: int = MAX_ITEM_BYTES
    seen: int = 0
    plans: list[Plan] = field(default_factory=list)
    """The distinct plans of the items that were taken."""
    bad: list[BadItem] = field(default_factory=list)
    """What is wrong with the others, MAX_LISTED mistakes at most."""
    bad_items: int = 0
    """How many others there are."""
    tenants: set[str] = field(default_factory=set)
    _numbers: list[int] = field(default_factory=list)
    """Of the items that were taken, among all that were seen."""
    _items: list[str] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)
    _chosen: list[int] = field(default_factory=list)
    _known: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _shared: dict[tuple[Plan, str, bool], int] = field(default_factory=dict)

    @property
    def taken(self) -> int:
        """How many items are good."""
        return len(self._items)

    def agents(self, plans: Sequence[Plan]) -> dict[str, int]:
        """How many items each agent gets by these plans: as admission changed this intake's."""
        counts: dict[str, int] = {}
        for index in self._chosen:
            agent = plans[index].agent
            counts[agent] = counts.get(agent, 0) + 1
        return counts

    def offer(self, raw: Any) -> None:
        """The next item, as JSON's values."""
        try:
            request: TaskRequest = _validate(raw)
        except ValidationError as error:
            self._refuse(_misfits(error))
            return
        self.add(self.caller.owned(request))

    def add(self, request: TaskRequest) -> None:
        """The next item, validated."""
        try:
            text = self._text(request)
            index = self._plan_of(request)
            if request.callback_url and self.read:
                self.receivers.append((self.seen, self.read(str(request.callback_url))))
        except ReceiverRefused as error:
            self._refuse([("callback_url", str(error))])
        except UnknownPattern as error:
            self._refuse([("capabilities" if request.pattern is None else "pattern", str(error))])
        except PayloadTooLarge as error:
            self._refuse([(None, str(error))])
        else:
            self._numbers.append(self.seen)
            self.seen += 1
            self._chosen.append(index)
            self._items.append(text.decode())
            self._sizes.append(escaped_bytes(text) + ITEM_OVERHEAD_BYTES)

    def refuse(self, message: str) -> None:
        """The next item cannot even be read."""
        self._refuse([(None, message)])

    def withdraw(self, refused: Mapping[int, str]) -> None:
        """Items that were taken may not have their receivers after all: why, by their numbers."""
        left = [place for place, number in enumerate(self._numbers) if number not in refused]
        self._numbers = [self._numbers[place] for place in left]
        self._items = [self._items[place] for place in left]
        self._sizes = [self._sizes[place] for place in left]
        self._chosen = [self._chosen[place] for place in left]
        self.bad_items += len(refused)
        told = [
            BadItem(index=number, field="callback_url", message=text)
            for number, text in refused.items()
        ]
        self.bad = sorted([*self.bad, *told], key=lambda each: each.index)[:MAX_LISTED]

    def _refuse(self, mistakes: Sequence[tuple[str | None, str]]) -> None:
        room = MAX_LISTED - len(self.bad)
        self.bad += [
            BadItem(index=self.seen, field=name, message=message)
            for name, message in mistakes[:room]
        ]
        self.seen += 1
        self.bad_items += 1

    def _plan_of(self, request: TaskRequest) -> int:
        key = (
            request.pattern,
            request.capabilities,
            request.priority,
            request.tenant,
            request.timeout,
        )
        index = self._known.get(key)
        if index is None:
            index = self._known[key] = self._shared_plan(request)
        return index

    def _shared_plan(self, request: TaskRequest) -> int:
        plan, strict = self.routes.plan(request), request.timeout is not None
        index = self._shared.setdefault((plan, request.tenant, strict), len(self.plans))
        if index == len(self.plans):
            self.plans.append(plan)
            self.tenants.add(request.tenant)
        return index

    def _text(self, request: TaskRequest) -> bytes:
        text = item_text(request)
        if len(text) > self.max_bytes:
            raise PayloadTooLarge(len(text), self.max_bytes)
        if (size := escaped_bytes(text)) > self.max_text_bytes:
            raise PayloadTooLarge(size, self.max_text_bytes)
        return text

    def parts(
        self,
        batch_id: str,
        plans: Sequence[Plan],
        limit_of: Callable[[str], RateLimit | None],
        created_at: datetime,
        traceparent: str | None = None,
    ) -> tuple[Batch, ...]:
        """What the parts of the batch start with; each fits into one input of the engine.

        Args:
            batch_id: of the batch.
            plans: as admission changed the ``plans`` of this intake, in their order.
            limit_of: the rate limit in force of an agent.
            created_at: when the request came.
            traceparent: of the request.
        """
        table = [
            _entry(plan, limit_of(plan.agent), tenant, strict=strict)
            for plan, (_, tenant, strict) in zip(plans, self._shared, strict=True)
        ]
        ranges = list(self._ranges([len(each.model_dump_json()) for each in table]))
        starts = tuple(begin for begin, _ in ranges)
        return tuple(
            Batch(
                plans=tuple(table[index] for index in used),
                items=tuple(self._items[begin:end]),
                chosen=tuple(used[index] for index in self._chosen[begin:end]),
                first=begin,
                part=part,
                starts=starts,
                batch_id=batch_id,
                traceparent=traceparent,
                created_at=created_at,
            )
            for part, (begin, end) in enumerate(ranges)
            for used in [_numbered(self._chosen[begin:end])]
        )

    def _ranges(self, plan_bytes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """First and after-last position of each part."""
        begin, size, used = 0, 0, set[int]()
        for position, (chosen, own) in enumerate(zip(self._chosen, self._sizes, strict=True)):
            needed = own + (0 if chosen in used else plan_bytes[chosen])
            if position > begin and size + needed > PART_BYTES:
                yield begin, position
                begin, size, used = position, 0, set()
                needed = own + plan_bytes[chosen]
            size += needed
            used.add(chosen)
        if begin < len(self._items):
            yield begin, len(self._items)


def _entry(plan: Plan, limit: RateLimit | None, tenant: str, *, strict: bool) -> BatchPlan:
    """How the items of a plan are carried out."""
    metered = limit is not None and limit.mode is LimitMode.QUEUE
    entry = BatchPlan(
        plan=plan.model_copy(update={"dispatch": Dispatch.QUEUED}),
        alone=metered or not all(each.idempotent for each in plan.routes),
        strict=strict,
        tenant=tenant,
    )
    return entry.model_copy(update={"pace": limit.rate}) if limit else entry


def most_text_bytes(settings: Settings) -> int:
    """Of an item within its batch: more than the engine takes, where a storage does."""
    most = settings.limits.max_payload_bytes
    return 2 * most if settings.payloads.storage.is_on else MAX_ITEM_BYTES


def item_text(request: TaskRequest) -> bytes:
    """The request as its batch carries it: JSON of what was said in it."""
    text: bytes = _to_json(request, exclude_unset=True)
    return text


def escaped_bytes(text: bytes) -> int:
    """Bytes of a JSON text within another."""
    return len(text) + text.count(b'"') + text.count(b"\\")


def _numbered(chosen: Sequence[int]) -> dict[int, int]:
    """The plans that are used, each with its new number."""
    return {index: number for number, index in enumerate(dict.fromkeys(chosen))}


def _misfits(error: ValidationError) -> list[tuple[str | None, str]]:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        (".".join(map(str, each["loc"])) or None, each["msg"].removeprefix(_VALUE_ERROR))
        for each in found
    ]
