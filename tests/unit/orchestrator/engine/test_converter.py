"""Models on their way through the engine."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec
from temporalio.exceptions import ApplicationError

from orchestrator.engine.converter import INVALID_INPUT, MAX_BLOB_BYTES, data_converter
from orchestrator.engine.converter import converter as converter_through
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.turns import Turns
from orchestrator.errors import EngineBusy, PayloadTooLarge
from orchestrator.models import AgentReply, Task, TaskRequest, TaskState
from orchestrator.statuses import TaskStatus
from orchestrator.transports.http import HttpTransport
from tests.support.plans import task
from tests.unit.orchestrator.transports.raw_agent import raw_agent, request, whole

converter = data_converter.payload_converter


def plain(text: str) -> Payload:
    """A payload as the command line and the Web UI make it."""
    return Payload(metadata={"encoding": b"json/plain"}, data=text.encode())


def test_a_task_travels_as_plain_json() -> None:
    """What was not given is not sent, so that people can read the input."""
    payload = converter.to_payload(TaskRequest(pattern="p", payload={"a": "ä"}))
    assert '{"pattern":"p","payload":{"a":"ä"}}' == payload.data.decode()
    assert b"json/plain" == payload.metadata["encoding"]


def test_a_task_comes_back_as_it_was() -> None:
    """Plan and payload survive the way there and back."""
    sent = task()
    assert sent == converter.from_payload(converter.to_payload(sent), Task)


def test_times_keep_their_zone() -> None:
    """Times of day are UTC on both sides."""
    now = datetime(2026, 1, 5, 12, 0, 0, 5, tzinfo=UTC)
    sent = TaskStatus(task_id="t", status=TaskState.QUEUED, created_at=now, updated_at=now)
    assert sent == converter.from_payload(converter.to_payload(sent), TaskStatus)


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "ä", [1, None], {"a": {"b": []}}, b"bytes"])
def test_plain_values_travel_too(value: Any) -> None:
    """Memos, queries and results of others need no model."""
    assert value == converter.from_payload(converter.to_payload(value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"pattern": "p"}', "payload: Field required"),
        ('{"pattern": "p", "payload": {}, "priority": 9}', "priority: Input should be less than"),
        ('{"pattern": "p", "payload": {}, "color": 1}', "color: Extra inputs are not permitted"),
        ('{"payload": {}}', "name a pattern, or the capabilities"),
        ("[]", "Input should be an object"),
        ("null", "Input should be an object"),
        ("{", "Invalid JSON"),
        ('{"pattern": "\\ud800", "payload": {}}', "Invalid JSON"),
    ],
)
def test_an_input_that_does_not_fit_fails_at_once(text: str, words: str) -> None:
    """It is explained, and not retried for ever as a failing workflow task."""
    with pytest.raises(ApplicationError) as caught:
        converter.from_payload(plain(text), Task)
    error = caught.value
    assert (INVALID_INPUT, True) == (error.type, error.non_retryable)
    assert error.message.startswith("The input does not fit: ")
    assert words in error.message


def test_every_misfit_is_named() -> None:
    """One attempt shows them all."""
    with pytest.raises(ApplicationError, match=r"payload: .*; priority: "):
        converter.from_payload(plain('{"pattern": "p", "priority": "x"}'), Task)


def test_misfits_do_not_repeat_the_input() -> None:
    """A failure is stored for long, so what was sent is not part of it."""
    with pytest.raises(ApplicationError) as caught:
        converter.from_payload(plain('{"pattern": "p", "payload": "s314159"}'), Task)
    assert "314159" not in caught.value.message


def test_the_largest_payload_passes() -> None:
    """Exactly the cap is allowed."""
    text = "x" * (MAX_BLOB_BYTES - 2)
    assert MAX_BLOB_BYTES == len(converter.to_payload(text).data)


def test_one_byte_more_does_not() -> None:
    """The engine would refuse it, in part by retrying for ever."""
    with pytest.raises(PayloadTooLarge, match="2,000,001 bytes are too many; at most 2,000,000"):
        converter.to_payload("x" * (MAX_BLOB_BYTES - 1))


@pytest.mark.parametrize("depth", [100, 150, 198, 199, 200, 201, 202])
async def test_what_the_transport_lets_in_the_engine_gives_back(depth: int) -> None:
    """An answer is refused at the agent's door or reaches the workflow, however deep it nests."""
    transport = HttpTransport(100_000)
    async with raw_agent(whole("200 OK", b"[" * depth + b"]" * depth)) as agent:
        try:
            body = (await transport.send(request(agent.url))).body
        except Exception as error:  # noqa: BLE001 - its kind is looked at
            assert "ReplyUnreadable" == type(error).__name__  # noqa: PT017
            return
        finally:
            await transport.close()
    reply = AgentReply(result=body, instance="", status=200, attempt=1, seconds=0)
    assert reply == converter.from_payload(converter.to_payload(reply), AgentReply)


class _SlowCodec(PayloadCodec):
    """As an encryption is with large payloads on a busy machine."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        await asyncio.sleep(0.5)
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self.encode(payloads)


async def test_the_engines_deadline_does_not_hold_for_what_a_codec_takes() -> None:
    """Nor is a call's turn lost by it: the engine gets no more calls at a time."""
    slow, turns = converter_through(codec=_SlowCodec()), Turns(1)
    async with engine_call(timedelta(seconds=0.2), turns):
        sealed = await slow.encode(["x"])
        assert await slow.decode(sealed) == ["x"]
        with pytest.raises(EngineBusy):
            await turns.take(0.05)
