"""Completion URLs: by which an agent that answers later tells us what came of its call.

Each is for one attempt of one task, signed, and good until that attempt's time is up. Whoever
holds one may answer, and nobody else can make one: the secret is all that it takes to check it.
"""

import base64
import hashlib
import hmac
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic_core import to_json

from orchestrator.errors import CompletionUnknown

PATH = "/completions/"
HEADER = "X-Completion-URL"
_RANDOM_BITS = 64


def new_answer_id(agent: str, attempt: int) -> str:
    """What the answer to one attempt is called in the engine; no other is called the same."""
    # Unique is enough: nobody need be unable to guess it, since it is signed with the rest.
    return f"{agent}.{attempt}.{random.getrandbits(_RANDOM_BITS):016x}"


@dataclass(frozen=True)
class Ticket:
    """What a completion URL says: whose answer it takes, and until when."""

    task_id: str
    answer_id: str
    expires: datetime

    @property
    def attempt(self) -> tuple[str, int]:
        """The agent, and the number of the attempt."""
        agent, number, _ = self.answer_id.rsplit(".", 2)
        return agent, int(number)


class CompletionUrls:
    """Makes and reads completion URLs; ``public_url`` is the API as agents reach it."""

    def __init__(self, public_url: str, secret: bytes) -> None:
        self._prefix = public_url.rstrip("/") + PATH
        self._secret = secret
        # The longest key that BLAKE2b takes, whatever the length of the secret.
        self._key = hashlib.blake2b(secret).digest()

    def url(self, ticket: Ticket) -> str:
        """The URL that stands for the ticket."""
        fields = [ticket.task_id, ticket.answer_id, int(ticket.expires.timestamp()) + 1]
        body = _text(to_json(fields))
        return f"{self._prefix}{body}.{self._signature(body)}"

    def read(self, token: str) -> Ticket:
        """The ticket of a URL's last part; it may have expired.

        Raises:
            CompletionUnknown: it was not made with this secret.
        """
        body, _, signature = token.partition(".")
        known = (self._signature(body), self._earlier_signature(body))
        if not any(hmac.compare_digest(signature.encode(), each.encode()) for each in known):
            raise CompletionUnknown
        task_id, answer_id, expires = json.loads(base64.urlsafe_b64decode(body + "=="))
        return Ticket(task_id, answer_id, datetime.fromtimestamp(expires, UTC))

    def _signature(self, body: str) -> str:
        # BLAKE2b with a key is a MAC (RFC 7693), and a quarter of an HMAC's time for each call.
        return _text(hashlib.blake2b(body.encode(), key=self._key, digest_size=32).digest())

    def _earlier_signature(self, body: str) -> str:
        """By which URLs were signed that agents may still hold."""
        return _text(hmac.digest(self._secret, body.encode(), hashlib.sha256))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
