"""Whoever sends a request: by which name, for which tenant, with which scopes."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import TenantForbidden
from orchestrator.models import TaskRequest

MAX_NAME = 100
ANONYMOUS = "anonymous"


class Scope(StrEnum):
    """What a caller may do; ``admin`` is all of it, for every tenant.

    ``submit``: hand in tasks, and cancel what was handed in. ``read``: see. ``operate``: redrive,
    discard, cancel many, steer agents.
    """

    SUBMIT = "submit"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Args:
        name: for logs and orders.
        tenant: whose work it sees and does; None is all tenants'.
        scopes: what it may do.
        kind: how it is known: ``key``, ``token`` or ``anonymous``.
    """

    name: str
    tenant: str | None
    scopes: frozenset[Scope]
    kind: str

    def may(self, scope: Scope) -> bool:
        """Whether it has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def sees_all(self) -> bool:
        """Whether it sees the work of all tenants."""
        return self.tenant is None or Scope.ADMIN in self.scopes

    @property
    def bound(self) -> str | None:
        """The one tenant whose work it sees; None where it sees all."""
        return None if self.sees_all else self.tenant

    def sees(self, tenant: str | None) -> bool:
        """Whether it may know of what is this tenant's; what is nobody's only who sees all does."""
        return self.sees_all or tenant == self.tenant

    def owned(self, request: TaskRequest) -> TaskRequest:
        """The task that it hands in, for its own tenant where the request names none.

        Raises:
            TenantForbidden: the request names another tenant.
        """
        if self.tenant is None:
            return request
        if "tenant" not in request.model_fields_set:
            return request.model_copy(update={"tenant": self.tenant})
        self.narrowed(request.tenant)
        return request

    def narrowed(self, asked: str | None) -> str | None:
        """The tenant that a list is of: its own, or the one that was asked for; None is all.

        Raises:
            TenantForbidden: it asks for another tenant than its own.
        """
        if asked is not None and not self.sees(asked):
            raise TenantForbidden(asked)
        return asked or self.bound


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes among these names; others are somebody else's."""
    known = set(Scope)
    return frozenset(Scope(name) for name in names if name in known)


EVERYBODY = Caller(ANONYMOUS, None, frozenset(Scope), ANONYMOUS)
"""Who is not asked for a key: may do everything."""
