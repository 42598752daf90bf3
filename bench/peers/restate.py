"""Restate: its server, and a service by its Python SDK under Hypercorn that calls durably.

The server is the npm package's; ``app`` is the service.
"""

import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import restate

from bench.children import child
from bench.client import Client
from bench.stage import PAYLOAD
from bench.subject import MissingError, Order, Outcome, Place, Send, submit
from tests.support.stack import free_port

WORKERS = 2
_PACKAGES = Path(__file__).parent / "node_modules" / "@restatedev"
_CONFIG = """
bind = "127.0.0.1:{port}"
h2_max_concurrent_streams = 2147483647
keep_alive_max_requests = 2147483647
keep_alive_timeout = 2147483647
workers = {workers}
worker_class = "uvloop"
"""

service = restate.Service("Caller")
_sessions: list[aiohttp.ClientSession] = []


@service.handler()
async def call(ctx: restate.Context, task: dict[str, Any]) -> Any:
    """Call the agent within a durable step."""

    async def post() -> Any:
        if not _sessions:
            _sessions.append(aiohttp.ClientSession(raise_for_status=True))
        async with _sessions[0].post(task["url"], json=task["payload"]) as response:
            return await response.json()

    return await ctx.run_typed("post", post)


app = restate.app(services=[service])


class Restate:
    """The server and the service."""

    durability = "Restate's log and RocksDB, as they come; stores journal and result for a day"

    def __init__(self, place: Place, ingress: str, pids: dict[str, list[int]]) -> None:
        self._place = place
        package = json.loads((_PACKAGES / "restate-server" / "package.json").read_text())
        sdk, hypercorn = version("restate-sdk"), version("hypercorn")
        self.versions = (
            f"restate-server {package['version']}, restate-sdk {sdk}, hypercorn {hypercorn}"
        )
        self._ingress = ingress
        self._pids = pids

    async def run(self, order: Order) -> Outcome:
        """Invoke the handler; the answer comes when the result is stored."""
        task = {"url": self._place.agent + order.path, "payload": PAYLOAD}
        ends: dict[str, float] = {}

        @asynccontextmanager
        async def connect() -> AsyncIterator[Send]:
            client = await Client.connect(self._ingress)

            async def send() -> str:
                name = str(uuid.uuid4())
                key = f"idempotency-key: {name}\r\n"
                answer = await client.request("POST", "/Caller/call", task, headers=key)
                if answer != {}:
                    raise ValueError(f"a call did not succeed: {answer}")
                ends[name] = time.time()
                return name

            yield send
            client.close()

        submissions = await submit(order, connect)
        submissions.stored()
        return submissions.outcome(ends)

    def processes(self) -> dict[str, list[int]]:
        """The server and the service."""
        return self._pids

    async def stored_bytes(self) -> int:
        """What the server keeps on disk, its log included."""
        files = (self._place.directory / "server").rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Restate]:
    """The server, and the service registered with it."""
    binary = _server()
    ingress, admin, node, port = (free_port() for _ in range(4))
    config = place.directory / "hypercorn.toml"
    config.write_text(_CONFIG.format(port=port, workers=WORKERS))
    serve = (sys.executable, "-m", "hypercorn", "--config", config, "bench.peers.restate:app")
    environment = {
        **os.environ,
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    folder, log = place.directory / "server", place.directory / "restate.log"
    run = (binary, "--base-dir", folder, "--node-name", "bench")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            child(*run, log=log, port=ingress, environment=environment)
        )
        workers = await stack.enter_async_context(
            child(*serve, log=place.directory / "service.log", port=port)
        )
        await _register(admin, port)
        pids = {"server": [server.pid], "service": [workers.pid]}
        yield Restate(place, f"http://127.0.0.1:{ingress}", pids)


def _server() -> Path:
    """The program in the package for this platform.

    Raises:
        MissingError: there is none.
    """
    found = sorted(_PACKAGES.glob("restate-server-*/bin/restate-server"))
    if not found:
        raise MissingError("the npm package @restatedev/restate-server is not installed")
    return found[0]


async def _register(admin: int, port: int) -> None:
    body = {"uri": f"http://127.0.0.1:{port}"}
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(f"http://127.0.0.1:{admin}/deployments", json=body),
    ):
        pass
