"""The dashboard at /: static files, which speak to the API as any other client does."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.dependencies import ServicesDependency
from orchestrator import __version__
from orchestrator.models import Model

router = APIRouter()

_FILES = Path(__file__).parent / "static"
_PAGE, _LOGIN_PAGE = "index.html", "login.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Kept, but asked for each time: a new version is seen at once, and the old one costs a 304.
    "Cache-Control": "no-cache",
}


class Engine(Model):
    """The engine as people see it."""

    namespace: str
    ui_url: str | None = Field(description="Its Web UI; null where nobody has said")


class Index(Model):
    """What there is here."""

    name: str
    version: str
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    health: str = "/health"
    metrics: str = "/metrics"
    temporal: Engine


@dataclass(frozen=True)
class _File:
    content: bytes
    kind: str
    etag: str


@cache
def _files() -> dict[str, _File]:
    """All files of the dashboard by name; nothing else can be asked for."""
    return {path.name: _read(path) for path in _FILES.iterdir() if path.suffix in _TYPES}


def _read(path: Path) -> _File:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, _TYPES[path.suffix], etag)


@router.get(
    "/",
    tags=["overview"],
    response_model=Index,
    summary="The dashboard",
    responses={
        200: {
            "description": "The page; for Accept: application/json what there is here",
            "content": {"text/html": {"schema": {"type": "string"}}},
        }
    },
)
async def index(request: Request, services: ServicesDependency) -> Response:
    """A page for browsers; for programs that ask for JSON, where to go."""
    accept = request.headers.get("accept", "")
    vary = {"Vary": "Accept"}
    if "application/json" not in accept or "text/html" in accept:
        return _answer(request, _files()[_PAGE], vary)
    temporal = services.settings.temporal
    found = Index(
        name=services.settings.agent.name,
        version=__version__,
        temporal=Engine(namespace=temporal.namespace, ui_url=temporal.web_ui),
    )
    headers = vary | {"Cache-Control": "no-store"}
    return Response(found.model_dump_json(), headers=headers, media_type="application/json")


@router.get("/login", include_in_schema=False)
async def login(request: Request) -> Response:
    """The page that asks for a key."""
    return _answer(request, _files()[_LOGIN_PAGE])


@router.get("/dashboard/{name}", include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    """A file of the dashboard."""
    if name not in _files():
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return _answer(request, _files()[name])


def _answer(request: Request, found: _File, headers: dict[str, str] | None = None) -> Response:
    headers = _HEADERS | {"ETag": found.etag} | (headers or {})
    if found.etag in re.findall(r'"[^"]*"', request.headers.get("if-none-match", "")):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.content, headers=headers, media_type=found.kind)
