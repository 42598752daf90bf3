"""API and worker on an engine behind mutual TLS, named by a profile; breaks, probes, draining."""

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent, Reply
from tests.support.engine import development_server
from tests.support.stack import BIN, Stack, agent_config, eventually, free_port
from tests.support.tls import LOCAL, Authority, TlsProxy, server_context, tls_proxy

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.own_topology("it has an engine of its own"),
]

SECONDS = 90.0
PROFILE = """
[profile.production]
address = "{address}"
namespace = "default"
[profile.production.tls]
server_ca_cert_path = "{ca}"
client_cert_path = "{cert}"
client_key_path = "{key}"
"""


@dataclass
class Part:
    """One process of the product."""

    process: Process
    metrics: str

    async def probe(self, path: str, url: str | None = None) -> tuple[int, str]:
        """What it answers to a probe at its metrics port, or at another URL; 0: nothing."""
        try:
            async with httpx.AsyncClient(timeout=10) as client:
                answer = await client.get((url or self.metrics) + path)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    async def said(self, code: int, path: str = "/ready", url: str | None = None) -> str:
        """Wait until a probe is answered so; the text of the answer."""

        async def answered() -> str | None:
            assert self.process.returncode is None
            found, text = await self.probe(path, url)
            return text if found == code else None

        return str(await eventually(answered, SECONDS, f"{path} {code}"))


@dataclass
class Production:
    """An API and a worker, and what is between them and the engine."""

    agent: Agent
    proxy: TlsProxy
    stack: Stack
    api: Part

    @asynccontextmanager
    async def part(self, name: str, **more: str) -> AsyncIterator[Part]:
        """One more process, ended with the block; ``more`` are variables."""
        port = free_port()
        variables = {
            **self.stack.variables(),
            "ORCHESTRATOR_MONITORING__METRICS_PORT": str(port),
            "TEMPORAL_CONFIG_FILE": str(self.stack.directory / "temporal.toml"),
            "TEMPORAL_PROFILE": "production",
            **more,
        }
        with (self.stack.directory / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(str(BIN / "orchestrator"), name),
                env=variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield Part(process, f"http://127.0.0.1:{port}")
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def done(self) -> Any:
        """Have one task done; its status."""
        async with self.stack.client() as client:
            body = {"pattern": "work", "payload": {}}
            answer = await client.post("/orchestrate", json=body, headers={"Prefer": "wait=60"})
        return answer.json().get("status")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def production(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Production]:
    """The API, and a worker that does not call the rare agent; both ready."""
    directory = tmp_path_factory.mktemp("production")
    authority = Authority(directory)
    engine, us = authority.issue("engine", *LOCAL), authority.issue("us", "us")
    context = server_context(engine, clients_of=authority)
    with development_server(directory) as temporal:
        async with Agent() as agent, tls_proxy(context, temporal.embedded.port) as proxy:
            config = agent_config(agent.url)
            common = directory / "common.yaml"
            common.write_text(json.dumps(config))
            rule = {
                "pattern": "rare",
                "target_agent": "rare_agent",
                "endpoint": agent.url + "/rare",
            }
            config = config | {"routing_rules": [*config["routing_rules"], rule]}
            patience = {"connect_timeout": SECONDS, "rpc_timeout": 2}
            stack = Stack(directory, config | {"temporal": patience})
            (directory / "temporal.toml").write_text(
                PROFILE.format(address=proxy.address, ca=authority.ca, cert=us.cert, key=us.key)
            )
            made = Production(agent, proxy, stack, None)  # type: ignore[arg-type]
            async with (
                made.part("api") as made.api,
                made.part("worker", ORCHESTRATOR_CONFIG=str(common)) as worker,
            ):
                await made.api.said(200)
                await worker.said(200)
                yield made


async def test_profile_leads_through_mutual_tls(production: Production) -> None:
    """A task goes all the way, with address and certificates from a profile alone."""
    assert "completed" == await production.done()


async def test_broken_connections_are_made_anew(production: Production) -> None:
    """Every connection breaks, and the next task is done all the same."""
    assert production.proxy.cut() > 0
    assert "completed" == await production.done()


async def test_without_the_engine_a_process_lives_and_is_not_ready(production: Production) -> None:
    """Probes at both ports: restarting it would help nobody; it comes back by itself."""
    api, url = production.api, production.stack.url
    production.proxy.away = True
    production.proxy.cut()
    try:
        reasons = [await api.said(503), await api.said(503, url=url)]
        alive = [await api.probe("/live"), await api.probe("/live", url)]
    finally:
        production.proxy.away = False
    await api.said(200)
    await api.said(200, url=url)

    assert all("The engine" in reason for reason in reasons)
    assert [(200, "ok\n"), (200, '{"status":"alive"}')] == alive
    assert "completed" == await production.done()


async def test_draining_process_lives_and_is_not_ready(production: Production) -> None:
    """A worker that is told to stop says so while it ends its call, and then is gone."""
    agent = production.agent
    agent.script(Reply(hang=True))
    async with production.part("worker") as worker:
        await worker.said(200)
        async with production.stack.client() as client:
            accepted = await client.post("/orchestrate", json={"pattern": "rare", "payload": {}})
        assert 202 == accepted.status_code

        async def called() -> bool:
            return any(call.path == "/rare" for call in agent.calls)

        await eventually(called, SECONDS)
        worker.process.send_signal(signal.SIGTERM)
        reason = await worker.said(503)
        alive = await worker.probe("/live")
        agent.release()
        code = await asyncio.wait_for(worker.process.wait(), SECONDS)

    assert "this process is stopping\n" == reason
    assert ((200, "ok\n"), 0) == (alive, code)
