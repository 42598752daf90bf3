"""The product with keys, for the tests of who may do what."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.agents import Agent, Call, Reply
from tests.support.keys import make
from tests.support.stack import Stack, agent_config

AGENT_SECRET = "planted-agent-header-0451"  # noqa: S105
CALLBACK_SECRET = "whsec_cGxhbnRlZC1jYWxsYmFjay1zZWNyZXQtMDQ1MQ=="  # noqa: S105
KEYS = {
    "acme": ("acme", "submit", "read", "operate"),
    "globex": ("globex", "submit", "read", "operate"),
    "reader": ("acme", "read"),
    "root": ("*", "admin"),
    "small": ("small", "submit", "read"),
    "quick": ("quick", "submit", "read"),
}
"""The keys by what they are for: tenant, then scopes."""
FAILING = {"pattern": "work", "payload": {"reply": {"status": 500}}}


def make_keys(file: Path) -> dict[str, str]:
    """The keys' secrets, once they are in the file."""
    made = {}
    for name, (tenant, *scopes) in KEYS.items():
        options = [option for scope in scopes for option in ("--scope", scope)]
        made[name] = make(file, "--name", name, "--tenant", tenant, *options)["key"]
    return made


def as_told(call: Call) -> Reply:
    """As the task's payload says."""
    return Reply(**(call.body or {}).get("reply", {}))


def config(agent: Agent, keys_file: Path) -> dict[str, Any]:
    """With keys, secrets planted, and no second chances."""
    found = agent_config(agent.url)
    found["agents"]["test_agent"]["headers"] = {"Authorization": AGENT_SECRET}
    found["security"] = {"keys_file": str(keys_file)}
    found["callbacks"] = {"secret": CALLBACK_SECRET, "allow": ["127.0.0.1"]}
    found["error_recovery"]["max_retries"] = 0
    found["routing_rules"].append(
        {
            "pattern": "small",
            "target_agent": "test_agent",
            "endpoint": "/work",
            "dispatch": "coalesced",
        }
    )
    return found


class Clients:
    """A client for each key, and one without."""

    acme: httpx.AsyncClient
    globex: httpx.AsyncClient
    reader: httpx.AsyncClient
    root: httpx.AsyncClient
    small: httpx.AsyncClient
    quick: httpx.AsyncClient

    def __init__(self, stack: Stack, made: dict[str, str]) -> None:
        self.made = made
        self.nobody = stack.client()
        self.all = [self.nobody]
        for name, key in made.items():
            client = stack.client(headers={"Authorization": f"Bearer {key}"})
            setattr(self, name, client)
            self.all.append(client)


@asynccontextmanager
async def clients_of(stack: Stack, made: dict[str, str]) -> AsyncIterator[Clients]:
    """Clients of the product's API."""
    clients = Clients(stack, made)
    async with AsyncExitStack() as opened:
        for each in clients.all:
            await opened.enter_async_context(each)
        yield clients


def task(pattern: str = "work", **more: Any) -> dict[str, Any]:
    """A task that completes."""
    return {"pattern": pattern, "payload": {}, **more}
