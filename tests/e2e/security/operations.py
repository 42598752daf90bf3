"""The operations of the API, as its description has them."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from api.app import create_app
from api.dependencies import Services
from orchestrator.config import Settings


class Operation(NamedTuple):
    """One operation of the description."""

    method: str
    path: str
    body: Any
    scope: str | None


def described() -> dict[str, Any]:
    """The description of an API that asks for keys."""
    asking = SimpleNamespace(authenticator=SimpleNamespace(asks=True), settings=Settings())
    return create_app(cast("Services", asking)).openapi()


def operations() -> Iterator[Operation]:
    """All of them, with a good body where one is wanted."""
    for path, item in described()["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {})
            examples = content.get("application/json", {}).get("examples", {})
            body = next((each["value"] for each in examples.values()), None)
            yield Operation(method.upper(), path, body, operation.get("x-scope"))


OPERATIONS = list(operations())
EVERYBODYS = {("GET", "/agents/{name}")}
"""Paths with a name in them that is no tenant's."""
