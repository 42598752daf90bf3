"""What a task can be found by in the Web UI and the command line."""

from datetime import timedelta
from typing import TypeVar

from pydantic_core import from_json
from temporalio.api.common.v1 import SearchAttributes
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from orchestrator import __version__
from orchestrator.errors import StartupError
from orchestrator.models import Plan, Task

AGENT = SearchAttributeKey.for_keyword("OrchestratorAgent")
PATTERN = SearchAttributeKey.for_keyword("OrchestratorPattern")
PRIORITY = SearchAttributeKey.for_int("OrchestratorPriority")
TENANT = SearchAttributeKey.for_keyword("OrchestratorTenant")
ERROR_TYPE = SearchAttributeKey.for_keyword("OrchestratorErrorType")
BATCH = SearchAttributeKey.for_keyword("OrchestratorBatch")
TYPES = {
    AGENT.name: "Keyword",
    PATTERN.name: "Keyword",
    PRIORITY.name: "Int",
    TENANT.name: "Keyword",
    ERROR_TYPE.name: "Keyword",
    BATCH.name: "Keyword",
}

BUILD_ID = f"orchestrator-{__version__}"
"""By which the engine tells this version's workers from others."""
BUILDS = SearchAttributePair(
    SearchAttributeKey.for_keyword_list("BuildIds"), ["unversioned", f"unversioned:{BUILD_ID}"]
)
"""What the engine itself notes of a workflow when one of our workers has done its first task.

Said at the start already, it is not written to the lists once more. Not each engine takes it.
"""

_REFUSED = {
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNAUTHENTICATED,
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.INVALID_ARGUMENT,
}

T = TypeVar("T", str, int)


def value_of(attributes: SearchAttributes, key: SearchAttributeKey[T]) -> T | None:
    """A text or a whole number among what the engine tells; None where it is none.

    The SDK decodes all of them whatever is wanted, by ways for every type: that took as long as
    all else that a task's status is put together from.
    """
    told = attributes.indexed_fields
    text = told[key.name].data if key.name in told else b""
    value = from_json(text or b"null")
    # Some lists of the engine tell a single value so.
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    return value if type(value) is key.value_type else None


def of_task(task: Task, plan: Plan) -> TypedSearchAttributes:
    """The attributes of one task."""
    pairs: list[SearchAttributePair[str] | SearchAttributePair[int]] = [
        SearchAttributePair(AGENT, plan.agent),
        SearchAttributePair(PRIORITY, plan.priority),
        SearchAttributePair(TENANT, task.tenant),
    ]
    if task.pattern is not None:
        pairs.append(SearchAttributePair(PATTERN, task.pattern))
    if task.batch is not None:
        pairs.append(SearchAttributePair(BATCH, task.batch))
    return TypedSearchAttributes(pairs)


def of_tenant(tenant: str | None) -> TypedSearchAttributes:
    """The attributes of what is one tenant's; none where it is several's or nobody's."""
    pairs = [] if tenant is None else [SearchAttributePair(TENANT, tenant)]
    return TypedSearchAttributes(pairs)


def of_coalesced(batch_id: str, *, notes_builds: bool) -> TypedSearchAttributes:
    """The attributes of a batch of tasks that were handed in singly."""
    found = TypedSearchAttributes([SearchAttributePair(BATCH, batch_id)])
    return found.updated(BUILDS) if notes_builds else found


def of_dead_letter(task: Task, plan: Plan, error_type: str) -> TypedSearchAttributes:
    """The attributes of a task's dead letter: the task's, and what it failed of."""
    return of_task(task, plan).updated(SearchAttributePair(ERROR_TYPE, error_type))


async def register(client: Client, timeout: timedelta) -> None:
    """Add the attributes that the namespace lacks.

    Raises:
        StartupError: the server does not allow it; the text says which command does.
    """
    try:
        missing = await _missing(client, timeout)
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace,
                    search_attributes={
                        name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}")
                        for name, kind in missing.items()
                    },
                ),
                timeout=timeout,
            )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return
        if error.status in _REFUSED:
            if await _usable(client, timeout):
                return
            raise StartupError(
                f"The engine does not let us register search attributes ({error.message}); run: "
                + registration_command(client.namespace)
            ) from None
        raise


async def lacking(client: Client, timeout: timedelta) -> tuple[str, ...]:
    """The names of those that the namespace lacks; nothing is added."""
    try:
        return tuple(await _missing(client, timeout))
    except RPCError as error:
        if error.status in _REFUSED:
            return () if await _usable(client, timeout) else tuple(TYPES)
        raise


async def _missing(client: Client, timeout: timedelta) -> dict[str, str]:
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace), timeout=timeout
    )
    return {k: v for k, v in TYPES.items() if k not in listed.custom_attributes}


async def _usable(client: Client, timeout: timedelta) -> bool:
    """Whether the attributes are there, by using them: a hosted engine may let nobody list them."""
    found = " OR ".join(f"{name} IS NOT NULL" for name in TYPES)
    try:
        await client.count_workflows(found, rpc_timeout=timeout)
    except RPCError as error:
        if error.status in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}:
            # Not this call is refused, but we are.
            raise
        return False
    return True


def registration_command(namespace: str) -> str:
    """The command by which an operator registers all attributes."""
    attributes = " ".join(f"--name {name} --type {kind}" for name, kind in TYPES.items())
    return f"temporal operator search-attribute create --namespace {namespace} {attributes}"
