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
from orchestrator.engine.turns import Turns
from orchestrator.errors import EngineBusy, EngineUnavailable

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


class Calls:
    """Calls that last until they may go on, one at a time."""

    def __init__(self, deadline: timedelta = DEADLINE) -> None:
        self._deadline = deadline
        self.turns = Turns(1)
        self.made: list[str] = []
        self.go = asyncio.Event()

    async def call(self, name: str, *, beside: bool = False) -> None:
        """One of them; with ``beside``, it is at the storage."""
        async with engine_call(self._deadline, self.turns):
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
        """Whoever comes now has its turn."""
        self.go.set()
        async with asyncio.timeout(10):
            await self.call("last")


async def test_calls_are_made_in_their_order() -> None:
    """Each when the one before it has been answered."""
    calls = Calls()
    begun = calls.begin("a", "b", "c")
    await _until(lambda: bool(calls.made))
    assert calls.made == ["a"]
    calls.go.set()
    await asyncio.gather(*begun)
    assert calls.made == ["a", "b", "c"]
    await calls.free()


async def test_a_call_is_not_made_while_the_engine_answers_nobody() -> None:
    """Its caller is told that it has surely not begun."""
    calls = Calls(timedelta(seconds=0.3))
    first = asyncio.create_task(_held(calls))
    await _until(lambda: bool(calls.made))
    with pytest.raises(EngineBusy, match="did not answer in time"):
        await calls.call("b")
    assert calls.made == ["held"]
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await calls.free()


async def test_a_call_waits_for_as_long_as_others_are_answered() -> None:
    """And has the whole of its deadline from its turn on: a burst is worked off, not refused."""
    calls = Calls(timedelta(seconds=1))

    async def slow(name: str) -> None:
        async with engine_call(timedelta(seconds=1), calls.turns):
            calls.made.append(name)
            await asyncio.sleep(0.3)

    names = [str(each) for each in range(6)]
    async with asyncio.timeout(30):
        await asyncio.gather(*map(slow, names))
    assert calls.made == names


async def test_a_call_that_is_cancelled_leaves_its_turn() -> None:
    """Whether it has it or waits for it."""
    calls = Calls()
    begun = calls.begin("a", "b")
    await _until(lambda: bool(calls.made))
    for call in reversed(begun):
        call.cancel()
    ends = await asyncio.gather(*begun, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert calls.made == ["a"]
    await calls.free()


async def test_a_turn_that_comes_as_its_call_is_cancelled_is_handed_on() -> None:
    """To the next who waits."""
    calls = Calls()
    first, second, third = calls.begin("a", "b", "c")
    await _until(lambda: bool(calls.made))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)  # the second has its turn, and has not run
    second.cancel()
    calls.go.set()
    async with asyncio.timeout(10):
        await third
    assert "c" in calls.made
    await calls.free()


async def test_nobody_waits_for_what_a_call_does_beside_the_engine() -> None:
    """A payload that is long in being stored holds up no other start."""
    calls = Calls()
    storing = asyncio.create_task(calls.call("storing", beside=True))
    others = calls.begin("a", "b")
    await _until(lambda: len(calls.made) > 1)
    assert calls.made == ["storing", "a"]
    calls.go.set()
    await asyncio.gather(storing, *others)
    assert calls.made == ["storing", "a", "b"]


async def test_who_waits_is_patient_with_a_call_that_is_beside_the_engine() -> None:
    """A large payload that is long in being encrypted says nothing of the engine."""
    turns, inside = Turns(1), asyncio.Event()

    async def encrypting() -> None:
        async with engine_call(timedelta(seconds=0.1), turns):
            with beside_engine(keeps_turn=True):
                inside.set()
                await asyncio.sleep(0.5)

    first = asyncio.create_task(encrypting())
    await inside.wait()
    async with asyncio.timeout(30), engine_call(timedelta(seconds=0.1), turns):
        assert first.done()
    await first


async def test_a_deadline_waits_until_nothing_is_beside_the_engine_any_more() -> None:
    """Of several that a call does at once, the last counts; then it holds again."""
    quick, slow = asyncio.Event(), asyncio.Event()

    async def beside(until: asyncio.Event) -> None:
        with beside_engine():
            await until.wait()

    done: list[None] = []

    async def call() -> None:
        async with engine_call(timedelta(seconds=0.2)):
            both = [asyncio.create_task(beside(each)) for each in (quick, slow)]
            await asyncio.sleep(0)
            quick.set()
            await asyncio.sleep(0.5)
            slow.set()
            done.extend(await asyncio.gather(*both))
            await asyncio.Event().wait()

    with pytest.raises(EngineUnavailable):
        await call()
    assert [None, None] == done


async def test_what_outlives_its_call_goes_on() -> None:
    """There is no deadline to keep any more."""
    ended = asyncio.Event()

    async def child() -> str:
        await ended.wait()
        with beside_engine():
            return "done"

    async with engine_call(DEADLINE):
        task = asyncio.create_task(child())
    ended.set()
    assert "done" == await task


async def _held(calls: Calls) -> None:
    """A call whose own deadline is far away, and which is never answered."""
    async with engine_call(DEADLINE, calls.turns):
        calls.made.append("held")
        await asyncio.Event().wait()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - it takes a turn of the loop or two
            await asyncio.sleep(0)
