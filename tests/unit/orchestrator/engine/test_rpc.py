"""The engine's errors in our words."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure, NotFoundFailure
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.engine.rpc import beside_engine, engine_call, names_missing_namespace, unavailable
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


class Places:
    """One place, and calls that want it."""

    def __init__(self, deadline: timedelta = DEADLINE) -> None:
        self._deadline = deadline
        self._places = asyncio.Semaphore(1)
        self.made: list[str] = []
        self.go = asyncio.Event()

    async def call(self, name: str, *, beside: bool = False) -> None:
        """A call that lasts until it may go; with ``beside``, at the storage."""
        async with engine_call(self._deadline, self._places):
            self.made.append(name)
            if beside:
                with beside_engine():
                    await self.go.wait()
            else:
                await self.go.wait()

    def begin(self, *names: str) -> list[asyncio.Task[None]]:
        """Calls of these names."""
        return [asyncio.create_task(self.call(name)) for name in names]

    async def free(self) -> None:
        """Whoever comes now gets the place."""
        self.go.set()
        async with asyncio.timeout(10):
            await self.call("last")


async def test_calls_wait_for_a_place_in_their_order() -> None:
    """Each is made when the one before it has been."""
    places = Places()
    calls = places.begin("a", "b", "c")
    await _until(lambda: bool(places.made))
    assert places.made == ["a"]
    places.go.set()
    await asyncio.gather(*calls)
    assert places.made == ["a", "b", "c"]
    await places.free()


async def test_a_call_that_gets_no_place_in_time_is_not_made() -> None:
    """Its caller may try again; who has the place keeps it no longer than its own deadline."""
    places = Places(timedelta(seconds=0.05))
    ends = await asyncio.gather(*places.begin("a", "b"), return_exceptions=True)
    assert [type(end) for end in ends] == [EngineUnavailable, EngineUnavailable]
    assert places.made == ["a"]
    await places.free()


async def test_a_call_that_is_cancelled_leaves_its_place() -> None:
    """Whether it has it or waits for it."""
    places = Places()
    calls = places.begin("a", "b")
    await _until(lambda: bool(places.made))
    for call in reversed(calls):
        call.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert places.made == ["a"]
    await places.free()


async def test_nobody_waits_for_what_a_call_does_beside_the_engine() -> None:
    """A payload that is long in being stored holds up no other start."""
    places = Places()
    storing = asyncio.create_task(places.call("storing", beside=True))
    others = places.begin("a", "b")
    await _until(lambda: len(places.made) > 1)
    assert places.made == ["storing", "a"]
    places.go.set()
    await asyncio.gather(storing, *others)
    assert places.made == ["storing", "a", "b"]


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - it takes a turn of the loop or two
            await asyncio.sleep(0)
