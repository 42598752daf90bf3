"""Why no connection to the engine comes about, in words that say what to do.

The SDK tells what its libraries told it. What listens there is looked at once more here, with
Python's own TLS, whose reasons have names.
"""

import asyncio
import re
import socket
import ssl
from contextlib import suppress
from typing import NoReturn

from temporalio.service import RPCError, RPCStatusCode

from orchestrator.config import Temporal
from orchestrator.errors import StartupError

LOOK_SECONDS = 3.0
_ALERT_SECONDS = 0.5
"""How soon after a handshake a server says that it wants another client certificate."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
_REFUSAL = re.compile(
    r'code: (?P<code>Unauthenticated|PermissionDenied), message: "(?P<said>(?:[^"\\]|\\.)*)"'
)
_WORDS = {
    "KeyMismatch": "the client certificate does not belong to its key",
    "PrivateKeyParseError": "the client certificate's key is not understood: PEM, without password",
    "CertificateParseError": "a certificate is not understood: PEM",
}


async def reason_of(temporal: Temporal, error: RuntimeError) -> str:
    """Why the client could not connect, in a few words, where waiting may help.

    Raises:
        StartupError: waiting does not help; says what does.
    """
    said = " ".join(str(error).split())
    if refusal := _REFUSAL.search(said):
        refuse(temporal, refusal["said"])
    if word := next((word for word in _WORDS if word in said), None):
        raise StartupError(f"temporal.tls: {_WORDS[word]}")
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            found = await _look(temporal)
    except socket.gaierror:
        return "the host's name is not known"
    except ConnectionRefusedError:
        return "nothing listens there"
    except (OSError, TimeoutError):
        return said
    if "h2 protocol error" in said:
        return "what listens there does not speak gRPC; is it another program's port?"
    return found or said


def refuse(temporal: Temporal, said: str) -> NoReturn:
    """Say that the engine knows us, and does not let us in.

    Raises:
        StartupError: always.
    """
    advice = (
        "renew temporal.api_key (TEMPORAL_API_KEY), and see that it may use the namespace "
        f"'{temporal.namespace}'"
        if temporal.api_key
        else "it may want temporal.api_key (TEMPORAL_API_KEY), or a client certificate"
    )
    what = "our API key" if temporal.api_key else "us"
    raise StartupError(f"The engine at {temporal.target} refuses {what} ({said}): {advice}")


def refused(temporal: Temporal, error: RPCError) -> None:
    """Tell a call that is refused for good.

    Raises:
        StartupError: it is.
    """
    if error.status in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}:
        refuse(temporal, error.message)
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        raise StartupError(f"The engine at {temporal.target} refuses us: {error.message}")


async def _look(temporal: Temporal) -> str | None:
    """Find out what the client and what listens there disagree about; None: nothing was found.

    Raises:
        StartupError: it was found.
        OSError: it cannot be reached, or breaks off.
    """
    host, _, port = temporal.target.rpartition(":")
    place = (host.strip("[]"), int(port))
    await _hang_up((await asyncio.open_connection(*place))[1])
    if temporal.uses_tls:
        return await _look_at_tls(temporal, place)
    if await _speaks_tls(place):
        raise StartupError(
            f"The engine at {temporal.target} wants TLS: set temporal.tls: true (TEMPORAL_TLS), or "
            "its ca_file, cert_file and key_file"
        )
    return None


async def _speaks_tls(place: tuple[str, int]) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        _, writer = await asyncio.open_connection(*place, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    await _hang_up(writer)
    return True


async def _look_at_tls(temporal: Temporal, place: tuple[str, int]) -> str | None:
    section, target = temporal.tls, temporal.target
    name = (section.server_name if section else None) or place[0]
    try:
        connection = await asyncio.open_connection(
            *place, ssl=_context(temporal), server_hostname=name
        )
    except ssl.SSLCertVerificationError as error:
        raise StartupError(
            f"The certificate of the engine at {target} is not accepted "
            f"({error.verify_message.rstrip('.')}): "
            "set temporal.tls.ca_file to the authority that signed it, or server_name to a name "
            "that is in it, or renew it"
        ) from None
    except ssl.SSLError as error:
        if error.reason in _NO_TLS:
            raise StartupError(
                f"What listens at {target} does not speak TLS: set temporal.tls: false "
                "(TEMPORAL_TLS), or correct the address"
            ) from None
        raise
    return await _after_handshake(temporal, *connection)


async def _after_handshake(
    temporal: Temporal, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str | None:
    """Whether the server goes on with a client that has shown no certificate."""
    section = temporal.tls
    own = section is not None and (section.cert_file or section.cert_data)
    advice = "set temporal.tls.cert_file and key_file to one that its authority signed"
    try:
        async with asyncio.timeout(_ALERT_SECONDS):
            if await reader.read(1):
                return None
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        refusal = "refuses our client certificate" if own else "wants a client certificate"
        raise StartupError(
            f"The engine at {temporal.target} {refusal} ({error.reason}): {advice}"
        ) from None
    finally:
        await _hang_up(writer)
    wanted = "it may refuse our client certificate" if own else "it may want a client certificate"
    return f"it ends the connection after the TLS handshake; {wanted}: {advice}"


def _context(temporal: Temporal) -> ssl.SSLContext:
    """As the client verifies; without its certificate, which the server is to ask for."""
    section = temporal.tls
    try:
        context = ssl.create_default_context(
            cafile=section.ca_file if section else None,
            cadata=section.ca_data if section else None,
        )
    except ssl.SSLError:
        raise StartupError("temporal.tls: ca_file holds no certificate: PEM is wanted") from None
    # As the client does, whatever this Python's own way is: they differ from 3.13 on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    return context


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        await writer.wait_closed()
