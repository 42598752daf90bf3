"""The engine's errors in our words."""

import asyncio
from datetime import timedelta

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure, NotFoundFailure
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.engine.rpc import engine_call, names_missing_namespace, unavailable
from orchestrator.errors import EngineUnavailable

DEADLINE = timedelta(seconds=20)


def rpc_error(status: RPCStatusCode, *details: Message) -> RPCError:
    """An error as the engine's client raises it."""
    packed = []
    for detail in details:
        message = AnyMessage()
        message.Pack(detail)
        packed.append(message)
    raw = GrpcStatus(code=status, message="no", details=packed).SerializeToString()
    return RPCError("no", status, raw)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (RPCStatusCode.UNAVAILABLE, "is unreachable"),
        (RPCStatusCode.DEADLINE_EXCEEDED, "did not answer in time"),
        (RPCStatusCode.CANCELLED, "did not answer in time"),
        (RPCStatusCode.RESOURCE_EXHAUSTED, "is overloaded"),
        (RPCStatusCode.ABORTED, "is busy"),
        (RPCStatusCode.INTERNAL, "failed inside"),
        (RPCStatusCode.UNKNOWN, "failed inside"),
        (RPCStatusCode.PERMISSION_DENIED, "refuses our credentials"),
        (RPCStatusCode.UNAUTHENTICATED, "refuses our credentials"),
    ],
)
async def test_an_engine_that_cannot_answer_is_unavailable(
    status: RPCStatusCode, words: str
) -> None:
    """The caller may try again; what the engine said stays as the cause."""
    with pytest.raises(EngineUnavailable, match=f"The engine {words}") as caught:
        async with engine_call(DEADLINE):
            raise rpc_error(status)
    assert isinstance(caught.value.__cause__, RPCError)


@pytest.mark.parametrize(
    "status",
    [
        RPCStatusCode.NOT_FOUND,
        RPCStatusCode.ALREADY_EXISTS,
        RPCStatusCode.INVALID_ARGUMENT,
    ],
)
async def test_an_answer_about_what_was_asked_passes(status: RPCStatusCode) -> None:
    """It is the caller's to understand."""
    error = rpc_error(status)
    with pytest.raises(RPCError) as caught:
        async with engine_call(DEADLINE):
            raise error
    assert error is caught.value


def test_a_missing_namespace_is_no_missing_task() -> None:
    """A locked database answers so, and must not be read as an unknown task."""
    error = rpc_error(RPCStatusCode.NOT_FOUND, NamespaceNotFoundFailure(namespace="default"))
    assert names_missing_namespace(error)
    assert isinstance(unavailable(error), EngineUnavailable)


@pytest.mark.parametrize("details", [(), (NotFoundFailure(),)])
def test_a_missing_task_is_no_missing_namespace(details: tuple[Message, ...]) -> None:
    """Other details, or none, are about the task."""
    error = rpc_error(RPCStatusCode.NOT_FOUND, *details)
    assert not names_missing_namespace(error)
    assert unavailable(error) is None


async def test_a_call_is_bounded() -> None:
    """Whatever the client does inside, the deadline ends it."""
    with pytest.raises(EngineUnavailable, match="did not answer in time"):
        async with engine_call(timedelta(milliseconds=10)):
            await asyncio.Event().wait()


async def test_our_own_cancellation_passes() -> None:
    """A request whose client has gone is not an unavailable engine."""

    async def call() -> None:
        async with engine_call(DEADLINE):
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_that_is_answered() -> None:
    """Nothing is added to it."""
    answered = False
    async with engine_call(DEADLINE):
        answered = True
    assert answered
