"""Callbacks over TLS: the connection goes to the address, the name is what is proven."""

import datetime as dt
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.addresses import ReceiverPolicy, ReceiverRefused
from orchestrator.receivers import Receivers
from orchestrator.transports.webhooks import DeliveryFailed, Webhooks

HOST = "hooks.example"


@dataclass
class Secured:
    """A receiver that has a certificate for HOST, and remembers what it was called."""

    certificate: Path
    port: int = 0
    server_names: list[str | None] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)

    def webhooks(self, *answers: str) -> Webhooks:
        """Of somebody who trusts it, and finds every name there; by default on this machine.

        Each lookup gets the next answer, and fails when there is none.
        """
        following = iter(answers or ["127.0.0.1"])

        async def resolve(_: str, __: int) -> Sequence[str]:
            return [next(following)]

        trusting = ssl.create_default_context(cafile=self.certificate)
        return Webhooks(Receivers(ReceiverPolicy(["127.0.0.0/8"]), resolve), 5, trusting)


def certificate(directory: Path) -> Path:
    """A key and a certificate for HOST, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    found = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = directory / "receiver.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + found.public_bytes(pem)
    )
    return path


@asynccontextmanager
async def secured(directory: Path) -> AsyncIterator[Secured]:
    """The receiver, on a free port."""
    receiver = Secured(certificate(directory))

    async def answer(request: web.Request) -> web.Response:
        receiver.hosts.append(request.headers["Host"])
        return web.Response(status=204)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(receiver.certificate)
    context.sni_callback = lambda _, name, __: receiver.server_names.append(name)
    app = web.Application()
    app.router.add_post("/hook", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def test_the_name_is_asked_for_and_proven(tmp_path: Path) -> None:
    """Though its address was looked up before."""
    async with secured(tmp_path) as receiver:
        url = f"https://{HOST}:{receiver.port}/hook"
        answer = await receiver.webhooks().send(url, b"{}", {})
    assert 204 == answer.status
    assert ([HOST], [f"{HOST}:{receiver.port}"]) == (receiver.server_names, receiver.hosts)


async def test_another_name_is_not_believed(tmp_path: Path) -> None:
    """An address alone proves nothing."""
    async with secured(tmp_path) as receiver:
        url = f"https://other.example:{receiver.port}/hook"
        with pytest.raises(DeliveryFailed, match="certificate"):
            await receiver.webhooks().send(url, b"{}", {})
    assert [] == receiver.hosts


async def test_a_name_that_changes_its_address_leads_nowhere_else(tmp_path: Path) -> None:
    """DNS rebinding: an attempt asks once and goes where it was told; the next one asks anew."""
    async with secured(tmp_path) as receiver:
        webhooks = receiver.webhooks("127.0.0.1", "169.254.169.254", "127.0.0.1")
        url = f"https://{HOST}:{receiver.port}/hook"
        first = await webhooks.send(url, b"{}", {})
        with pytest.raises(ReceiverRefused, match="link-local"):
            await webhooks.send(url, b"{}", {})
        calls = len(receiver.hosts)
        last = await webhooks.send(url, b"{}", {})
    assert (204, 1, 204) == (first.status, calls, last.status)
