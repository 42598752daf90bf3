"""What is said of an engine that cannot be reached: one line, with the cause and what to do."""

import asyncio
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Temporal
from orchestrator.engine.connect import connect
from orchestrator.errors import StartupError
from tests.support.stack import free_port
from tests.support.tls import (
    LOCAL,
    Authority,
    door,
    refusing_engine,
    server_context,
    serving,
    tls_proxy,
)

PATIENCE = 1.5
NOTHING = 1  # a port that nobody listens at


async def complaint(port: int, host: str = "127.0.0.1", **section: Any) -> str:
    """The one line that connecting ends with."""
    temporal = Temporal.model_validate(
        {"address": f"{host}:{port}", "connect_timeout": PATIENCE, **section}
    )
    with pytest.raises(StartupError) as refusal:
        await connect(temporal, "tests")
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def files(**paths: Path) -> dict[str, str]:
    """The section ``temporal.tls``."""
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom the engine's certificates are signed by."""
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_nothing_listens_there() -> None:
    """The address is wrong, or the engine is not started."""
    port = free_port()
    found = await complaint(port)
    assert f"No engine answers at 127.0.0.1:{port} (temporal.address)" in found
    assert "nothing listens there; start it, or correct the address" in found


async def test_host_is_not_known() -> None:
    """A name that cannot be resolved is told as that."""
    found = await complaint(7233, "engine.invalid")
    assert "the host's name is not known" in found


async def test_another_program_listens_there() -> None:
    """An HTTP server, such as the Web UI, is no engine."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with serving(answer) as port:
        found = await complaint(port)
    assert "what listens there does not speak gRPC" in found


async def test_engine_wants_tls(authority: Authority) -> None:
    """Without TLS on our side the key that switches it on is named, at once."""
    with door(server_context(authority.issue("wants", *LOCAL))) as port:
        found = await complaint(port)
    assert "wants TLS: set temporal.tls: true" in found


async def test_engine_speaks_no_tls() -> None:
    """With TLS on our side alone, the key that switches it off is named."""
    async with refusing_engine(12, "no") as port:
        found = await complaint(port, tls=True)
    assert "does not speak TLS: set temporal.tls: false" in found


@pytest.mark.parametrize(
    ("names", "lasts", "authorities", "reason"),
    [
        (LOCAL, 1, "the system's", "unable to get local issuer certificate"),
        (("engine.example",), 1, "ours", "IP address mismatch"),
        (LOCAL, -1, "ours", "certificate has expired"),
    ],
)
async def test_certificate_is_not_accepted(
    authority: Authority, names: tuple[str, ...], lasts: int, authorities: str, reason: str
) -> None:
    """Why it is not, and which key may mend it."""
    own = authority.issue("certificate", *names, lasts=timedelta(days=lasts))
    with door(server_context(own)) as port:
        section = files(ca_file=authority.ca) if authorities == "ours" else True
        found = await complaint(port, tls=section)
    assert reason in found
    assert "set temporal.tls.ca_file to the authority that signed it, or server_name" in found


async def test_engine_wants_a_client_certificate(authority: Authority) -> None:
    """What it said about that, and the keys for one."""
    own = authority.issue("mutual", *LOCAL)
    with door(server_context(own, clients_of=authority)) as port:
        found = await complaint(port, tls=files(ca_file=authority.ca))
    assert "wants a client certificate (" in found
    assert "set temporal.tls.cert_file and key_file" in found


async def test_engine_refuses_a_foreign_client_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    """A certificate of another authority is not that of ours."""
    own, foreign = authority.issue("mutual", *LOCAL), Authority(tmp_path, "other").issue("us", "us")
    with door(server_context(own, clients_of=authority)) as port:
        section = files(ca_file=authority.ca, cert_file=foreign.cert, key_file=foreign.key)
        found = await complaint(port, tls=section)
    assert "refuses our client certificate" in found


async def test_connection_ends_after_the_handshake(authority: Authority) -> None:
    """A server that does not say why may want a certificate, or may be starting."""
    own = authority.issue("silent", *LOCAL)
    async with tls_proxy(server_context(own, clients_of=authority), NOTHING) as proxy:
        found = await complaint(proxy.port, tls=files(ca_file=authority.ca))
    assert "it may want a client certificate" in found


async def test_certificate_and_key_are_no_pair(authority: Authority) -> None:
    """A key of another certificate is found before anything is sent."""
    one, two = authority.issue("one", "one"), authority.issue("two", "two")
    found = await complaint(NOTHING, tls=files(cert_file=one.cert, key_file=two.key))
    assert found == "temporal.tls: the client certificate does not belong to its key"


async def test_file_cannot_be_read(tmp_path: Path) -> None:
    """A missing file is named."""
    missing = tmp_path / "none.crt"
    found = await complaint(NOTHING, tls=files(ca_file=missing))
    assert found == f"temporal.tls: {missing} cannot be read: No such file or directory"


@pytest.mark.parametrize("status", [7, 16])
async def test_api_key_is_refused(status: int) -> None:
    """PERMISSION_DENIED and UNAUTHENTICATED are about the key and its namespace, at once."""
    async with refusing_engine(status, "Request unauthorized.") as port:
        found = await complaint(port, tls=False, api_key="a-planted-key", namespace="team")
    assert f"The engine at 127.0.0.1:{port} refuses our API key (Request unauthorized.)" in found
    assert "renew temporal.api_key (TEMPORAL_API_KEY)" in found
    assert "namespace 'team'" in found
    assert "a-planted-key" not in found


async def test_engine_that_wants_a_key_is_given_none() -> None:
    """Who gave no key is told that one may be wanted."""
    async with refusing_engine(16, "Request unauthorized.") as port:
        found = await complaint(port)
    assert "refuses us (Request unauthorized.): it may want temporal.api_key" in found


async def test_silent_port_is_given_up() -> None:
    """What takes connections and says nothing is waited for no longer than connect_timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = await complaint(silent.getsockname()[1])
    assert f"within {PATIENCE:g} s; start it, or correct the address" in found
