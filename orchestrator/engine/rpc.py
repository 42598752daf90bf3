"""Calls to the engine with our own deadline, and its errors in our words."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.engine.turns import Turn, Turns
from orchestrator.errors import EngineUnavailable, OrchestratorError

_UNAVAILABLE = {
    RPCStatusCode.UNAVAILABLE: "is unreachable",
    RPCStatusCode.DEADLINE_EXCEEDED: "did not answer in time",
    RPCStatusCode.CANCELLED: "did not answer in time",
    RPCStatusCode.RESOURCE_EXHAUSTED: "is overloaded",
    RPCStatusCode.ABORTED: "is busy",
    RPCStatusCode.INTERNAL: "failed inside",
    RPCStatusCode.UNKNOWN: "failed inside",
    RPCStatusCode.DATA_LOSS: "failed inside",
    RPCStatusCode.UNAUTHENTICATED: "refuses our credentials",
    RPCStatusCode.PERMISSION_DENIED: "refuses our credentials",
    RPCStatusCode.FAILED_PRECONDITION: "is not in a state to answer",
    RPCStatusCode.UNIMPLEMENTED: "is of a version that cannot answer",
    RPCStatusCode.OUT_OF_RANGE: "failed inside",
}

EAGERLY_ONCE: dict[str, Any] = {
    "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
    "id_conflict_policy": WorkflowIDConflictPolicy.FAIL,
    "request_eager_start": True,
}
"""How a workflow is started that no request may start twice: its first task comes in the answer."""


class _Call:
    """A call that is under way: what bounds it, and its turn, where it needed one.

    Several of its tasks may do something beside the engine at once, and one may outlive it.
    """

    def __init__(self, bound: asyncio.Timeout, turn: Turn | None) -> None:
        self.turn = turn
        self.ended = False
        self._bound = bound
        self._beside = 0
        self._left = 0.0

    @property
    def is_over(self) -> bool:
        """Whether there is no deadline left to keep."""
        return self.ended or self._bound.expired()

    def pause(self) -> None:
        """Let the deadline wait."""
        when = self._bound.when()
        if not self._beside and when is not None:
            self._left = when - asyncio.get_running_loop().time()
            self._bound.reschedule(None)
        self._beside += 1

    def go_on(self) -> None:
        """Let it go on where it was left, once nothing is done beside the engine any more."""
        self._beside -= 1
        if not self._beside and not self.ended:
            self._bound.reschedule(asyncio.get_running_loop().time() + self._left)


_call: ContextVar[_Call | None] = ContextVar("_call", default=None)


@asynccontextmanager
async def engine_call(deadline: timedelta, turns: Turns | None = None) -> AsyncIterator[None]:
    """Bound a call to the engine, retries of the client included.

    With ``turns`` it is made when its turn has come, and has all its time from then on.

    Raises:
        EngineUnavailable: the engine did not answer, or could not; EngineBusy: nor was it asked.
    """
    turn = await turns.take(deadline.total_seconds()) if turns is not None else None
    answered = False
    try:
        async with asyncio.timeout(deadline.total_seconds()) as bound:
            call = _Call(bound, turn)
            token = _call.set(call)
            try:
                yield
            finally:
                call.ended = True
                _call.reset(token)
        answered = True
    except TimeoutError:
        raise EngineUnavailable("The engine did not answer in time") from None
    except RPCError as error:
        translated = unavailable(error)
        answered = translated is None
        if translated is None:
            raise
        raise translated from error
    finally:
        if turn is not None:
            turn.leave(answered=answered)


@contextmanager
def beside_engine(*, keeps_turn: bool = False) -> Iterator[None]:
    """What is done in the block, within a call to the engine, does not count against its deadline.

    It has to end by itself. The call's turn is given up for good, unless it ``keeps_turn``: nobody
    is to wait for what is no work of the engine, where it may take long and is rare.
    """
    call = _call.get()
    if call is None or call.is_over:
        yield
        return
    if call.turn is not None and not keeps_turn:
        call.turn.leave()
    call.pause()
    try:
        with call.turn.beside() if call.turn is not None else nullcontext():
            yield
    finally:
        call.go_on()


def unavailable(error: RPCError) -> OrchestratorError | None:
    """The error in our words if it says nothing about what was asked, else None.

    A locked database makes the development server answer NOT_FOUND for the namespace itself;
    that must not be read as an unknown task.
    """
    if error.status is RPCStatusCode.NOT_FOUND and names_missing_namespace(error):
        return EngineUnavailable("The engine does not find its namespace; it may be starting")
    words = _UNAVAILABLE.get(error.status)
    return EngineUnavailable(f"The engine {words}") if words else None


def names_missing_namespace(error: RPCError) -> bool:
    """Whether a NOT_FOUND is about the namespace rather than the workflow."""
    return any(each.Is(NamespaceNotFoundFailure.DESCRIPTOR) for each in error.grpc_status.details)
