"""One attempt to deliver a callback, against real receivers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.deliver_callback import UNSIGNED, CallbackSender
from orchestrator.addresses import ReceiverPolicy
from orchestrator.callbacks import Callback, Delivered
from orchestrator.receivers import Receivers
from orchestrator.signing import key_of
from orchestrator.transports.webhooks import Webhooks
from tests.support.agents import Agent, Reply
from tests.support.receivers import SECRET, hook, verified

DELAYS = (10.0, 100.0)


def callback(url: str) -> Callback:
    """Of some task."""
    return Callback(
        callback_id="a.b c",
        url=url,
        event="task.failed",
        at=datetime(2026, 1, 15, tzinfo=UTC),
        data={"task_id": "a.b c", "status": "failed", "error": "é"},
    )


async def deliver(
    url: str,
    attempt: int = 1,
    *,
    keys: Sequence[bytes] = (key_of(SECRET),),
    timeout: float = 5,
    chance: float = 0.5,
) -> Delivered:
    """One attempt; receivers may be on this machine."""
    webhooks = Webhooks(Receivers(ReceiverPolicy(["127.0.0.1"])), timeout)
    sender = CallbackSender(webhooks, keys, DELAYS, lambda: chance)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=attempt)
    return await environment.run(sender.deliver_callback, callback(url))


async def refused(url: str, **options: object) -> ApplicationError:
    """The error of one attempt."""
    with pytest.raises(ApplicationError) as caught:
        await deliver(url, **options)  # type: ignore[arg-type]
    return caught.value


async def test_it_is_signed_and_says_what_happened() -> None:
    """With an id that any header takes."""
    async with Agent(Reply(status=202, body=b"x" * 1000)) as receiver:
        delivered = await deliver(hook(receiver), attempt=2)
    [call] = receiver.calls
    event = verified(call)
    assert (2, 202) == (delivered.attempts, delivered.status_code)
    assert ("a%2Eb%20c", "task.failed", "é") == (event.webhook_id, event.type, event.data["error"])
    assert "application/json" == call.headers["Content-Type"]
    assert {"type", "timestamp", "data"} == set(call.body)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 500, 503])
async def test_whatever_is_not_2xx_is_tried_again(status: int) -> None:
    """A redirect too, and it is not followed."""
    async with Agent() as other:
        headers = {"Location": hook(other)}
        async with Agent(Reply(status=status, headers=headers)) as receiver:
            error = await refused(hook(receiver))
    assert ("CallbackFailed", False) == (error.type, error.non_retryable)
    assert f"the receiver answered {status}" == error.message
    assert 1 == len(receiver.calls)
    assert [] == other.calls


async def test_gone_means_gone() -> None:
    """At once."""
    async with Agent(Reply(status=410)) as receiver:
        error = await refused(hook(receiver))
    assert ("CallbackGone", True) == (error.type, error.non_retryable)


@pytest.mark.parametrize(
    ("attempt", "chance", "retry_after", "seconds"),
    [
        (1, 0.0, None, 10),
        (1, 1.0, None, 12),
        (2, 0.5, None, 110),
        (1, 0.0, "50", 50),
        (1, 0.0, "5", 10),
        (1, 0.0, "86400", 100),
        (1, 0.0, "Thu, 01 Jan 2026 00:00:00 GMT", 10),
        (1, 0.0, "soon", 10),
    ],
)
async def test_the_next_attempt_comes_by_the_schedule(
    attempt: int, chance: float, retry_after: str | None, seconds: float
) -> None:
    """Or later, as the receiver asks, up to the longest pause."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    async with Agent(Reply(status=503, headers=headers)) as receiver:
        error = await refused(hook(receiver), attempt=attempt, chance=chance)
    assert timedelta(seconds=seconds) == error.next_retry_delay


async def test_after_the_schedule_it_is_dead() -> None:
    """The last attempt tells the reason."""
    async with Agent(Reply(status=500)) as receiver:
        error = await refused(hook(receiver), attempt=3)
    assert ("CallbackExhausted", True) == (error.type, error.non_retryable)
    assert (3, 500) == (error.details[0].attempts, error.details[0].status_code)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(hang=True), "no answer within 0.5 s"),
        (Reply(raw=b"HTTP/1.1 102 Processing\r\n\r\n" * 3), "answer"),
        (Reply(raw=b"SSH-2.0-OpenSSH\r\n"), "the answer is not HTTP"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), "not HTTP"),
        (Reply(reset=True), ""),
    ],
)
async def test_an_answer_that_does_not_come_is_a_failure(reply: Reply, reason: str) -> None:
    """Within the time that an attempt has."""
    async with Agent(reply) as receiver, asyncio.timeout(10):
        error = await refused(hook(receiver), timeout=0.5)
    assert "CallbackFailed" == error.type
    assert reason in error.message or "onnect" in error.message


async def test_an_endless_answer_is_not_read() -> None:
    """The status is all that counts."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nx"
    async with Agent(Reply(raw=raw)) as receiver:
        delivered = await deliver(hook(receiver))
    assert 200 == delivered.status_code


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2:8080/", "http://169.254.169.254/", "http://[::1]/", "ftp://h/"]
)
async def test_a_receiver_inside_is_dead_at_once(url: str) -> None:
    """Whoever started the task, and however."""
    error = await refused(url)
    assert ("CallbackRefused", True) == (error.type, error.non_retryable)
    assert error.message.startswith("callback_url ")


async def test_without_a_key_nothing_is_sent() -> None:
    """What nobody can verify helps nobody; another worker may have one."""
    async with Agent() as receiver:
        error = await refused(hook(receiver), keys=())
    assert (UNSIGNED, False) == (error.message, error.non_retryable)
    assert [] == receiver.calls


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """They could reach what we must not."""
    async with Agent() as proxy, Agent() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await deliver(hook(receiver))
    assert ([], 1) == (proxy.calls, len(receiver.calls))
