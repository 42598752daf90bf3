"""Who sends a request, and what of it is theirs to see."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol, TypeVar

from fastapi import Depends, Request
from starlette.types import Scope

from orchestrator.errors import Unauthenticated
from orchestrator.security.authenticator import NO_CREDENTIALS
from orchestrator.security.callers import Caller

_KEY = "orchestrator.caller"


class Owned(Protocol):
    """What is some tenant's; None is several's, or nobody's."""

    @property
    def tenant(self) -> str | None:
        """Whose it is."""


AnyOwned = TypeVar("AnyOwned", bound=Owned)


def set_caller(scope: Scope, caller: Caller) -> None:
    """Note who sends the request."""
    scope[_KEY] = caller


def known(scope: Scope) -> Caller | None:
    """Who sends the request, if that has been found out."""
    found: Caller | None = scope.get(_KEY)
    return found


def caller_of(request: Request) -> Caller:
    """Who sends the request, as api/security.py found out.

    Raises:
        Unauthenticated: nobody that is known; only what is open to everybody gets so far.
    """
    found = known(request.scope)
    if found is None:
        raise Unauthenticated(NO_CREDENTIALS, shown=False)
    return found


async def _caller(request: Request) -> Caller:
    return caller_of(request)


CallerDependency = Annotated[Caller, Depends(_caller)]


async def check(caller: Caller, look: Callable[[], Awaitable[Owned]], missing: Exception) -> None:
    """Raises ``missing`` where what is looked at is another tenant's: as if it were not there."""
    if not caller.sees_all and not caller.sees((await look()).tenant):
        raise missing


def shown(caller: Caller, found: AnyOwned, missing: Exception) -> AnyOwned:
    """What was found; raises ``missing`` where it is another tenant's."""
    if not caller.sees(found.tenant):
        raise missing
    return found


def by(caller: Caller, told: str, otherwise: str) -> str:
    """Who gives an order: by their key, or as they say where nobody asks for one."""
    return told or otherwise if caller.kind == "anonymous" else caller.name
