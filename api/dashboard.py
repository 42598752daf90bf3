"""The dashboard at ``/``: static files for the browser, which asks the API for everything else."""

import hashlib
import mimetypes
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic_core import to_json
from starlette.responses import Response

from api.dependencies import ServicesDependency
from orchestrator import __version__
from orchestrator.config import Settings

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parent / "static"
_PAGE = "index.html"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect", "img")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # The browser asks each time whether its copy is the current one.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Asset:
    """A file of the dashboard, read once."""

    content: bytes
    media_type: str
    tag: str

    @classmethod
    def read(cls, path: Path) -> "Asset":
        """The file's content with its type and ETag."""
        content = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return cls(content, kind, f'"{hashlib.sha256(content).hexdigest()[:20]}"')

    def answer(self, request: Request) -> Response:
        """The file, or 304 where the browser has it."""
        headers = {**_HEADERS, "ETag": self.tag}
        if self.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


_ASSETS = {path.name: Asset.read(path) for path in _FOLDER.iterdir() if path.is_file()}


@router.get("/")
async def index(request: Request) -> Response:
    """The dashboard; the way to the other pages as JSON where the client takes no HTML."""
    accept = request.headers.get("accept", "")
    if "application/json" in accept and "text/html" not in accept:
        links = {"name": "Orchestration Agent", "version": __version__, "docs": "/docs"}
        return Response(
            to_json(links | {"openapi": "/openapi.json"}), media_type="application/json"
        )
    return _ASSETS[_PAGE].answer(request)


@router.get("/dashboard/settings")
async def settings(services: ServicesDependency) -> Response:
    """What the page needs to know: the version, and where the engine's Web UI is."""
    return Response(to_json(page_settings(services.settings)), media_type="application/json")


@router.get("/dashboard/{name}")
async def asset(name: str, request: Request) -> Response:
    """A file of the dashboard."""
    if name not in _ASSETS:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"The dashboard has no file '{name}'")
    return _ASSETS[name].answer(request)


def page_settings(settings: Settings) -> dict[str, Any]:
    """``temporal_ui`` is null where no Web UI is known."""
    temporal = settings.temporal
    web_ui = temporal.ui_url
    if web_ui is None and temporal.is_embedded:
        web_ui = f"http://127.0.0.1:{temporal.embedded.ui_port}"
    return {
        "version": __version__,
        "temporal_ui": web_ui and web_ui.rstrip("/"),
        "namespace": temporal.namespace,
    }
