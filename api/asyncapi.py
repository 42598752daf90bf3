"""The description of what goes over the broker, as OpenAPI's is of HTTP."""

from html import escape
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse

from api.dependencies import ServicesDependency
from orchestrator.messaging.asyncapi import document

router = APIRouter(tags=["messages"])

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}: messages</title>
<style>body{{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}
code{{background:#8882;padding:.1em .3em}}td,th{{text-align:left;vertical-align:top;padding:.3em 1em
.3em 0}}</style></head><body><h1>{title}: messages</h1><p>{description} The whole, for tools:
<a href="/asyncapi.json">/asyncapi.json</a> (AsyncAPI 3).</p>{body}</body></html>"""


@router.get("/asyncapi.json", summary="What goes over the broker (AsyncAPI 3)")
async def asyncapi(services: ServicesDependency) -> JSONResponse:
    """Channels, messages and schemas by this process's configuration."""
    return JSONResponse(document(services.settings))


@router.get("/asyncapi", summary="The same to read", response_class=HTMLResponse)
async def page(services: ServicesDependency) -> HTMLResponse:
    """A page that needs nothing from elsewhere."""
    found = document(services.settings)
    info = {name: escape(str(found["info"][name])) for name in ("title", "description")}
    body = "".join(map(_section, found["channels"].values()))
    return HTMLResponse(_PAGE.format(**info, body=body or "<p>No broker is configured.</p>"))


def _section(channel: dict[str, Any]) -> str:
    address = escape(channel["address"] or "named by the message")
    messages = "".join(f"<li><code>{escape(name)}</code></li>" for name in channel["messages"])
    return (
        f"<h2><code>{address}</code></h2><p>{escape(channel['description'])}</p><ul>{messages}</ul>"
    )
