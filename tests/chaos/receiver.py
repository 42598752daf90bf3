"""The receiver of callbacks, which fails as it likes, and knows what it was told."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Self

from standardwebhooks import WebhookVerificationError

from tests.support.agents import Agent, Call, Reply
from tests.support.receivers import verified

GONE_ONE_IN, FAILS_ONE_IN = 12, 3


@dataclass
class Told:
    """What one task's callback brought."""

    webhook_ids: set[str] = field(default_factory=set)
    texts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The bodies by webhook-id."""
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The data of what was answered with 2xx, by webhook-id."""


class Receiver:
    """Answers 410 for one task in twelve, and fails the first attempts of one in three."""

    def __init__(self) -> None:
        self.told: dict[str, Told] = defaultdict(Told)
        self.unsigned = 0
        self.down: Reply | None = None
        """How everything is answered for the time being."""
        self.failed = 0
        self._agent = Agent(decide=self._decide)
        self._attempts: dict[str, int] = defaultdict(int)

    async def __aenter__(self) -> Self:
        await self._agent.__aenter__()
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._agent.__aexit__(*reason)

    def url(self, number: int) -> str:
        """Where to tell of a task."""
        return f"{self._agent.url}/hook/{number}"

    def _decide(self, call: Call) -> Reply:
        self._agent.calls.clear()
        try:
            event = verified(call)
        except (WebhookVerificationError, KeyError, ValueError):
            self.unsigned += 1
            return Reply(status=400)
        told = self.told[event.data["task_id"]]
        told.webhook_ids.add(event.webhook_id)
        told.texts[event.webhook_id].add(call.text)
        number = int(call.path.rpartition("/")[2])
        reply = self.down or self._by_number(number, event.webhook_id)
        if reply.status < 300 and not reply.reset and not reply.hang:
            told.accepted[event.webhook_id] = event.data
        else:
            self.failed += 1
        return reply

    def _by_number(self, number: int, webhook_id: str) -> Reply:
        self._attempts[webhook_id] += 1
        if number % GONE_ONE_IN == 0:
            return Reply(status=410)
        if number % FAILS_ONE_IN == 0 and self._attempts[webhook_id] <= 2:
            return (Reply(status=500), Reply(reset=True))[self._attempts[webhook_id] % 2]
        return Reply(status=204, body=b"")
