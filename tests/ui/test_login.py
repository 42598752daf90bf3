"""Logging in by the browser, and the dashboard as it is with a session."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from orchestrator.security.command import command
from tests.support.keys import make
from tests.support.stack import Stack, agent_config, eventually, running
from tests.ui.contrast import CONTRAST
from tests.ui.page import Page

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

AGENT = "test_agent"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key of nobody here."""
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    make(file, "--name", "first", "--tenant", "*")
    return file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(keys_file: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The product, which asks for keys."""
    config = agent_config("http://127.0.0.1:9") | {"security": {"keys_file": str(keys_file)}}
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


@pytest.fixture
def page(driver: webdriver.Chrome, stack: Stack) -> Page:
    """The dashboard, which nobody has a session of."""
    driver.get(f"{stack.url}/login")
    driver.delete_all_cookies()
    return Page(driver, stack.url)


async def asked(page: Page, path: str = "/") -> None:
    """Open a view, and be asked for a key."""
    await page.do(page.driver.get, "about:blank")
    await page.do(page.driver.get, f"{page.url}/#{path}")
    await page.until(lambda: "/login" in page.driver.current_url, "login")
    await page.until(lambda: "key" == page.run("return document.activeElement.id"), "focus")


async def taken(stack: Stack, key: str) -> str:
    """The key, once the product has seen it."""
    async with stack.client(headers={"Authorization": f"Bearer {key}"}) as client:

        async def known() -> bool:
            return (await client.get("/session")).status_code == 200

        await eventually(known, what="new key")
    return key


async def test_a_key_opens_the_view_that_was_asked_for(
    page: Page, stack: Stack, keys_file: Path
) -> None:
    """All of it by the keyboard: a wrong key is told, the right one is in no place of the page."""
    made = make(keys_file, "--name", "ann", "--tenant", "acme", "--scope", "read")
    key = await taken(stack, made["key"])
    await page.do(page.complaints)
    await asked(page, "/tasks?status=failed")
    names = await page.do(page.focused)
    await page.keys("wrong", Keys.ENTER)
    await page.sees("no key of ours", "[role=alert]")
    invalid = await page.do(lambda: page.one("#key").get_attribute("aria-invalid"))
    await page.keys(key, Keys.ENTER)
    await page.sees("Tasks", "h1")
    await page.sees("ann (acme)", "header")
    address, text = await page.do(
        page.run, "return [location.href, document.documentElement.outerHTML + document.cookie]"
    )

    assert ("API key or token", "true") == (names[1], invalid)
    assert f"{stack.url}/#/tasks?status=failed" == address
    assert key not in text
    stored = "return JSON.stringify([localStorage, sessionStorage])"
    assert key not in await page.do(page.run, stored)
    # The browser's own line on the answer to the wrong key, and no other.
    assert ["401"] == ["401" if "401" in each else each for each in await page.do(page.complaints)]


async def test_a_tenants_key_is_told_what_it_does_not_see(
    page: Page, stack: Stack, keys_file: Path
) -> None:
    """The numbers of all tenants; the rest is there, and nothing is complained about."""
    options = ("--scope", "read", "--scope", "submit")
    made = make(keys_file, "--name", "tess", "--tenant", "acme", *options)
    await taken(stack, made["key"])
    await page.do(page.complaints)
    await asked(page)
    await page.keys(made["key"], Keys.ENTER)
    text = await page.sees("take a key for all tenants")
    agents = await page.do(page.text, "table")
    await page.go(f"/agents/{AGENT}", AGENT)
    of_agent = await page.sees("takes a key for all tenants")

    assert ("those of acme" in text, "Queues by priority" in text) == (True, False)
    assert (AGENT in agents, "Traffic" in agents, "Limits" in agents) == (True, False, True)
    assert "Instances" in of_agent
    assert not await page.do(lambda: page.one("#banner").is_displayed())
    assert [] == await page.do(page.complaints)


async def test_a_key_that_may_not_see_begins_no_session(
    page: Page, stack: Stack, keys_file: Path
) -> None:
    """It is told what it lacks; another can be tried at once."""
    made = make(keys_file, "--name", "sue", "--tenant", "acme", "--scope", "submit")
    await taken(stack, made["key"])
    await asked(page)
    await page.keys(made["key"], Keys.ENTER)
    await page.sees("takes the scope 'read'", "[role=alert]")
    assert [] == await page.do(page.driver.get_cookies)


async def test_an_order_is_the_keys_holders(page: Page, stack: Stack, keys_file: Path) -> None:
    """The session may do what the key may; what it does stands in the agent's events."""
    options = ("--scope", "read", "--scope", "operate")
    key = await taken(stack, make(keys_file, "--name", "olga", "--tenant", "*", *options)["key"])
    await asked(page, f"/agents/{AGENT}")
    await page.keys(key, Keys.ENTER)
    await page.confirm("Drain…", "Drain", reason="maintenance")
    await page.sees("olga")
    async with stack.client(headers={"Authorization": f"Bearer {key}"}) as client:
        events = (await client.get(f"/agents/{AGENT}")).json()["events"]
    assert ("olga", "maintenance") in [(each["by"], each["reason"]) for each in events]


async def test_who_logs_out_is_asked_again(page: Page, stack: Stack, keys_file: Path) -> None:
    """As is whoever's key is revoked, at the next look."""
    made = make(keys_file, "--name", "rob", "--tenant", "*", "--scope", "read")
    key = await taken(stack, made["key"])
    await asked(page)
    await page.keys(key, Keys.ENTER)
    await page.sees("rob", "header")
    await page.press("Log out")
    await page.until(lambda: "/login" in page.driver.current_url, "login")
    await asked(page, "/batches")
    await page.keys(key, Keys.ENTER)
    await page.sees("Batches", "h1")
    arguments = ["revoke", made["id"], "--file", str(keys_file)]
    await asyncio.to_thread(CliRunner().invoke, command, arguments)
    await page.until(lambda: "/login#/batches" in page.driver.current_url, "login")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_login_can_be_read_in_both_themes(page: Page, scheme: str) -> None:
    """At least 4.5 to 1 everywhere, with a complaint shown, and on a small screen too."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    await page.do(page.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", media)
    await asked(page)
    await page.keys("wrong", Keys.ENTER)
    await page.sees("no key of ours", "[role=alert]")
    ground = await page.do(page.run, "return getComputedStyle(document.body).backgroundColor")
    assert (scheme == "light") == (int(ground.split("(")[1].split(",")[0]) > 128)
    assert [] == await page.do(page.run, CONTRAST)
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    await page.do(page.driver.execute_cdp_cmd, "Emulation.setDeviceMetricsOverride", size)
    try:
        assert await page.do(page.run, "return document.documentElement.scrollWidth") <= 360
    finally:
        await page.do(page.driver.execute_cdp_cmd, "Emulation.clearDeviceMetricsOverride", {})
