"""The dashboard's files, and how they are sent."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

import api
from api.app import create_app
from api.dependencies import Services
from orchestrator.config import Embedded, Settings, Temporal

STATIC = Path(api.__file__).parent / "static"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def get(path: str, temporal: Temporal | None = None, **headers: str) -> httpx.Response:
    """What the application answers."""
    settings = Settings(temporal=temporal or Temporal())
    app = create_app(cast("Services", SimpleNamespace(settings=settings)))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        return await client.get(path, headers=named)


@pytest.mark.parametrize("accept", [BROWSER, "*/*", "text/html, application/json"])
async def test_browsers_get_the_page(accept: str) -> None:
    """And whoever does not ask for JSON."""
    answer = await get("/", accept=accept)

    assert (200, "text/html; charset=utf-8") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    assert "<main" in answer.text
    assert "Accept" == answer.headers["vary"]


async def test_programs_get_an_index() -> None:
    """Where to go from here, and where the engine's Web UI is."""
    answer = await get("/", Temporal(embedded=Embedded(ui_port=9999)), accept="application/json")

    found = answer.json()
    assert ("/docs", "/metrics") == (found["docs"], found["metrics"])
    assert {"namespace": "default", "ui_url": "http://127.0.0.1:9999"} == found["temporal"]


@pytest.mark.parametrize(
    ("given", "expected"), [(None, None), ("https://ui.example.com/", "https://ui.example.com")]
)
async def test_a_clusters_web_ui_is_where_the_configuration_says(
    given: str | None, expected: str | None
) -> None:
    """Nobody guesses it."""
    temporal = Temporal(address="cluster:7233", ui_url=given)

    answer = await get("/", temporal, accept="application/json")

    assert expected == answer.json()["temporal"]["ui_url"]


@pytest.mark.parametrize("path", ["/", "/dashboard/app.js", "/dashboard/style.css"])
async def test_a_page_may_use_nothing_but_our_own_files(path: str) -> None:
    """No inline code, no other host, no frame around it."""
    answer = await get(path, accept=BROWSER)

    policy = answer.headers["content-security-policy"]
    allowed = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert ("'none'", "'self'", "'self'") == (
        allowed["default-src"],
        allowed["script-src"],
        allowed["style-src"],
    )
    assert "unsafe" not in policy
    for directive in ("frame-ancestors", "base-uri", "form-action"):
        assert "'none'" == allowed[directive]
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert "no-referrer" == answer.headers["referrer-policy"]


async def test_a_file_that_is_known_is_not_sent_again() -> None:
    """304 with the same tag; another tag gets the file."""
    first = await get("/dashboard/app.js")
    etag = first.headers["etag"]

    same = await get("/dashboard/app.js", if_none_match=f'W/"old", {etag}')
    other = await get("/dashboard/app.js", if_none_match='"old"')

    assert (304, b"", etag) == (same.status_code, same.content, same.headers["etag"])
    assert (200, first.content) == (other.status_code, other.content)


@pytest.mark.parametrize(
    "path", ["/dashboard/none.js", "/dashboard/..%2Fdashboard.py", "/dashboard/%2e%2e%2fapp.py"]
)
async def test_other_files_are_not_served(path: str) -> None:
    """A problem document, as everywhere."""
    answer = await get(path)

    assert 404 == answer.status_code
    assert "application/problem+json" == answer.headers["content-type"]


@pytest.mark.parametrize("file", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_no_code_makes_markup_of_text(file: Path) -> None:
    """Nor styles or handlers inline, which the policy refuses."""
    text = file.read_text()

    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "style:",
    ):
        assert word not in text
    imports: list[Any] = re.findall(r'from "([^"]+)"', text)
    assert all(each.startswith("./") and (STATIC / each).exists() for each in imports)


def test_nothing_comes_from_another_host() -> None:
    """No address in any file but the namespace of SVG."""
    found = {
        address
        for path in STATIC.iterdir()
        for address in re.findall(r"https?://[^\s\"'`)]+", path.read_text())
    }
    assert {"http://www.w3.org/2000/svg"} == found
