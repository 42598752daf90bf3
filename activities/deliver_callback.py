"""One attempt to deliver a callback; the engine repeats it by the configured schedule."""

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pydantic_core import to_json
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.heartbeats import signs_of_life
from orchestrator.addresses import ReceiverRefused
from orchestrator.callbacks import (
    DELIVER_CALLBACK,
    EXHAUSTED,
    GONE,
    REFUSED,
    Callback,
    Delivered,
    DeliveryFailure,
    message_id,
)
from orchestrator.signing import signature
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger
from orchestrator.transports.webhooks import DeliveryFailed, WebhookAnswer, Webhooks

FAILED = "CallbackFailed"
"""The type of a failure after which there is another attempt."""
UNSIGNED = "this worker has no key to sign with: set callbacks.secret"
JITTER = 0.2
"""Pauses are longer by up to so much of themselves: who comes back is not met by a wave."""

_GONE = 410

log = get_logger(__name__)


class CallbackSender:
    """The activity with what it needs.

    Args:
        webhooks: by which it is sent.
        keys: to sign with; none where that is not set up.
        delays: seconds before the second attempt, the third, and so on.
        chance: from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        webhooks: Webhooks,
        keys: Sequence[bytes],
        delays: Sequence[float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._chance = chance
        self.configure(webhooks, keys, delays)

    def configure(self, webhooks: Webhooks, keys: Sequence[bytes], delays: Sequence[float]) -> None:
        """Deliver by these from the next attempt on."""
        self._webhooks = webhooks
        self._keys = keys
        self._delays = delays

    @activity.defn(name=DELIVER_CALLBACK)
    async def deliver_callback(self, callback: Callback) -> Delivered:
        """Send it once.

        Raises:
            ApplicationError: with a DeliveryFailure: of type CallbackFailed where the engine is to
                come again, else of the type that the callback is dead of.
        """
        began = time.perf_counter()
        try:
            async with signs_of_life():
                answer = await self._send(callback)
        except ReceiverRefused as error:
            raise self._dead(callback, REFUSED, f"callback_url {error}", began) from None
        except DeliveryFailed as error:
            raise self._failed(callback, str(error), None, began) from None
        text = f"the receiver answered {answer.status}"
        if answer.status == _GONE:
            raise self._dead(callback, GONE, f"{text}: it is gone", began, answer)
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - the 2xx class
            raise self._failed(callback, text, answer, began)
        _count("delivered", began)
        attempts = activity.info().attempt
        log.info("callback_delivered", callback_id=callback.callback_id, attempts=attempts)
        return Delivered(attempts=attempts, status_code=answer.status, at=datetime.now(UTC))

    async def _send(self, callback: Callback) -> WebhookAnswer:
        if not self._keys:
            raise DeliveryFailed(UNSIGNED)
        body = body_of(callback)
        name, timestamp = message_id(callback.callback_id), int(time.time())
        headers = {
            "webhook-id": name,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._keys, name, timestamp, body),
        }
        return await self._webhooks.send(callback.url, body, headers)

    def _failed(
        self, callback: Callback, text: str, answer: WebhookAnswer | None, began: float
    ) -> ApplicationError:
        made = activity.info().attempt
        if made > len(self._delays):
            return self._dead(callback, EXHAUSTED, text, began, answer)
        _count("failed", began)
        pause = self._pause(made, answer.retry_after if answer else None)
        log.warning(
            "callback_failed",
            callback_id=callback.callback_id,
            attempt=made,
            reason=text,
            next_attempt_in=round(pause, 1),
        )
        return ApplicationError(
            text,
            _failure(text, answer),
            type=FAILED,
            next_retry_delay=timedelta(seconds=pause),
        )

    def _pause(self, made: int, asked: float | None) -> float:
        """Seconds until the next attempt: by the schedule, or later where the receiver says so."""
        pause = self._delays[made - 1] * (1 + JITTER * self._chance())
        return max(pause, min(asked or 0, max(self._delays)))

    @staticmethod
    def _dead(
        callback: Callback,
        kind: str,
        text: str,
        began: float,
        answer: WebhookAnswer | None = None,
    ) -> ApplicationError:
        _count("dead", began)
        log.error("callback_dead", callback_id=callback.callback_id, error_type=kind, reason=text)
        return ApplicationError(text, _failure(text, answer), type=kind, non_retryable=True)


def body_of(callback: Callback) -> bytes:
    """What is sent: the same bytes at every attempt."""
    return to_json({"type": callback.event, "timestamp": callback.at, "data": callback.data})


def _failure(text: str, answer: WebhookAnswer | None) -> DeliveryFailure:
    return DeliveryFailure(
        attempts=activity.info().attempt,
        error=text,
        status_code=answer.status if answer else None,
        at=datetime.now(UTC),
    )


def _count(outcome: str, began: float) -> None:
    metrics.callback_delivery(outcome, time.perf_counter() - began)
