"""The codec server: encodes and decodes payloads for the Temporal Web UI and command line.

Speaks Temporal's protocol: the last part of the path is ``encode``, ``decode`` or ``download``, the
body ``{"payloads": [...]}`` as protobuf's JSON. What is kept outside of the engine is shown as the
reference that it is; ``download`` fetches it.
"""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from api import errors
from api.requests import json_value, whole_body
from orchestrator.config import Settings
from orchestrator.endpoints import origin
from orchestrator.errors import Forbidden, PayloadUnreadable
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.callers import Scope
from orchestrator.security.exposure import check_host
from orchestrator.telemetry.logging import audit_logger

MAX_BODY_BYTES = 16 * 1024 * 1024
"""A page of a history, in base64."""
NAMESPACE = "x-namespace"

Act = Callable[[Sequence[Payload]], Awaitable[Sequence[Payload]]]

audit = audit_logger()


class CodecServer:
    """Its three operations.

    Args:
        converter: as the clients of the engine have it.
        namespace: the only one whose payloads are read.
        authenticator: knows who asks.
        is_local_only: nobody is asked who they are, but everybody is on this machine.
    """

    def __init__(
        self,
        converter: DataConverter,
        namespace: str,
        authenticator: Authenticator,
        *,
        is_local_only: bool = False,
    ) -> None:
        self._converter = converter
        self._codec = converter.payload_codec
        self._namespace = namespace
        self._authenticator = authenticator
        self._is_local_only = is_local_only

    async def encode(self, request: Request) -> Response:
        """Encrypt what somebody is about to send to the engine by hand."""
        return await self._answer(request, self._encoded)

    async def decode(self, request: Request) -> Response:
        """Decrypt what the engine holds."""
        return await self._answer(request, self._decoded)

    async def download(self, request: Request) -> Response:
        """Fetch and decrypt what a storage holds in the engine's stead."""
        return await self._answer(request, self._fetched)

    async def _answer(self, request: Request, act: Act) -> Response:
        name = await self._caller(request)
        namespace = request.headers.get(NAMESPACE, self._namespace)
        if namespace != self._namespace:
            detail = f"This codec server is for namespace '{self._namespace}', not '{namespace}'"
            return errors.problem(HTTPStatus.FORBIDDEN, detail)
        body = await whole_body(request, MAX_BODY_BYTES)
        try:
            given = _payloads(json_value(body))
        except ParseError as error:
            detail = f'The body is not {{"payloads": [...]}}: {error}'
            return errors.problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        answer = Payloads(payloads=await act(given.payloads))
        audit.info("payloads_read", by=name, act=request.url.path, count=len(given.payloads))
        return Response(MessageToJson(answer, indent=None), media_type="application/json")

    async def _caller(self, request: Request) -> str:
        """Who asks, who has to see the work of all tenants.

        Raises:
            Unauthenticated, Forbidden: they may not.
        """
        if self._is_local_only:
            check_host(request.headers.get("host"), "The codec server")
        kind, _, credential = request.headers.get("authorization", "").partition(" ")
        shown = credential.strip() if kind.lower() == "bearer" else ""
        caller = await self._authenticator.caller(shown or None)
        if not (caller.may(Scope.READ) and caller.sees_all):
            raise Forbidden("Payloads are shown to who may read those of all tenants", Scope.READ)
        return caller.name

    async def _encoded(self, payloads: Sequence[Payload]) -> Sequence[Payload]:
        return await self._codec.encode(payloads) if self._codec else payloads

    async def _decoded(self, payloads: Sequence[Payload]) -> Sequence[Payload]:
        return await self._codec.decode(payloads) if self._codec else payloads

    async def _fetched(self, payloads: Sequence[Payload]) -> Sequence[Payload]:
        if self._converter.external_storage is None:
            raise PayloadUnreadable("This codec server has no payloads.storage to fetch from")
        raw = await self._converter.decode(payloads, [RawValue] * len(payloads))
        return [each.payload for each in raw]


def _payloads(body: Any) -> Payloads:
    if not isinstance(body, dict):
        raise ParseError("not an object")
    return ParseDict(body, Payloads(), ignore_unknown_fields=True)


def create_app(settings: Settings, server: CodecServer) -> Starlette:
    """The application; pages of the configured origins alone may ask."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins_of(settings),
        allow_methods=["POST"],
        allow_headers=["Authorization", "Content-Type", "X-Namespace"],
        # Web UIs may be told to include cookies; a proxy before this server may need them.
        allow_credentials=True,
        max_age=600,
    )
    app = Starlette(
        routes=[
            Route(f"/{prefix}{name}", getattr(server, name), methods=["POST"])
            for name in ("encode", "decode", "download")
            for prefix in ("", "{prefix:path}/")
        ],
        middleware=[cors],
    )
    errors.install(app)
    return app


def origins_of(settings: Settings) -> list[str]:
    """Of the Web UIs that may ask from within browsers."""
    section, temporal = settings.payloads.codec_server, settings.temporal
    if section.origins:
        return list(section.origins)
    if temporal.ui_url:
        return [origin(temporal.ui_url)]
    if temporal.is_embedded:
        port = temporal.embedded.ui_port
        return [f"http://localhost:{port}", f"http://127.0.0.1:{port}"]
    return []
