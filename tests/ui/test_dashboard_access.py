"""The dashboard for everybody: by keyboard and ear, in the dark, on small screens; and safely."""

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from tests.ui.contrast import CONTRAST
from tests.ui.page import Page
from tests.ui.work import buried, status_of, submit

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.e2e]

VIEWS = {
    "/": "Overview",
    "/agents/twin_agent": "twin_agent",
    "/tasks": "Tasks",
    "/dead-letters": "Dead letters",
    "/batches": "Batches",
}


async def test_every_view_keeps_to_the_policy(page: Page) -> None:
    """The browser complains of nothing; and would not run code that came in from elsewhere."""
    await page.do(page.complaints)
    for path, title in VIEWS.items():
        await page.open(path)
        assert title in await page.do(page.text, "h1")
    complaints = await page.do(page.complaints)
    await page.do(
        page.run,
        "const s = document.createElement('script'); s.textContent = 'window.came = 1';"
        "document.body.append(s)",
    )

    assert [] == complaints
    assert not await page.do(page.run, "return window.came")
    assert any("Content Security Policy" in each for each in await page.do(page.complaints))


async def test_the_theme_is_the_systems_until_somebody_chooses(page: Page) -> None:
    """Dark where the system is; what was chosen holds after a reload."""

    async def brightness(scheme: str) -> int:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        await page.do(page.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", media)
        colour = await page.do(page.run, "return getComputedStyle(document.body).backgroundColor")
        return int(colour.split("(")[1].split(",")[0])

    await page.open()
    system = [await brightness("light") > 200, await brightness("dark") < 50]
    await page.press("Theme: auto")
    await page.open()
    light = await brightness("dark")
    await page.press("Theme: light")
    dark = await brightness("light")
    await page.press("Theme: dark")

    assert [True, True] == system
    assert light > 200
    assert dark < 50


async def test_everything_can_be_done_by_the_keyboard(page: Page, api: httpx.AsyncClient) -> None:
    """From the skip link to a confirmed order, with the focus where one expects it."""
    task_id = await submit(api, {"hang": True})
    await page.open("/tasks?status=running")
    await page.sees(task_id[:8])
    await page.keys(Keys.TAB)
    first = await page.do(page.focused)
    await page.keys(Keys.ENTER)
    skipped = await page.do(page.run, "return document.activeElement.id")
    await page.tab_to(f"{task_id[:8]}…{task_id[-4:]}")
    await page.keys(Keys.ENTER)
    await page.sees("Attempt 1", ".timeline")
    arrived = await page.do(page.run, "return document.activeElement.tagName")
    await page.tab_to("Cancel task…")
    outline = await page.do(
        page.run, "return getComputedStyle(document.activeElement).outlineStyle"
    )
    await page.keys(Keys.ENTER)
    await page.until(lambda: page.one("dialog").get_attribute("open"), "dialog")
    await page.keys(Keys.ESCAPE)
    await page.until(lambda: not page.one("dialog").get_attribute("open"), "end of the dialog")
    returned = (await page.do(page.focused))[1]
    still = (await status_of(api, task_id))["status"]
    await page.keys(Keys.ENTER)
    await page.tab_to("Cancel the task", most=5)
    await page.keys(Keys.ENTER)
    await page.sees("cancelled", ".heading")

    assert ("link", "Skip to the content") == first
    assert ("main", "H1", "solid") == (skipped, arrived, outline)
    assert ("Cancel task…", "running") == (returned, still)


async def test_the_focus_stays_while_the_page_lives_on(page: Page, api: httpx.AsyncClient) -> None:
    """A filter that is being typed into keeps the focus and its text while rows come."""
    await page.open("/tasks")
    await page.do(lambda: page.one("#filter-pattern").send_keys("wor"))
    task_id = await submit(api, {}, wait=60)
    await page.sees(task_id[:8])

    typed = await page.do(
        page.run, "return [document.activeElement.id, document.activeElement.value]"
    )
    await page.keys("k", Keys.ENTER)
    await page.until(lambda: "pattern=work" in page.driver.current_url, "filter in the address")

    assert ["filter-pattern", "wor"] == typed


async def test_everything_has_a_name_and_a_role(page: Page, api: httpx.AsyncClient) -> None:
    """Landmarks, one heading, captions, column headings; no control without a name."""
    await submit(api, {}, wait=60)
    await buried(api)

    def nameless() -> list[str]:
        controls = page.all("a, button, input, select, table, [role=img], [role=region], nav")
        return [
            each.get_attribute("outerHTML") or "" for each in controls if not each.accessible_name
        ]

    def shape() -> dict[str, int]:
        wanted = ("main", "header", "nav[aria-label]", "h1", "footer")
        return {each: len(page.all(each)) for each in wanted}

    for path in VIEWS:
        await page.open(path)
        for name, number in (await page.do(shape)).items():
            assert (number >= 1) if name.startswith("nav") else (1 == number), (path, name)
        assert [[]] == await page.until(lambda: [nameless()], "names"), path
        loose = "table:not(:has(caption)), table:has(thead th:not([scope])), tr:not(:has(th))"
        assert [] == await page.do(page.all, loose), path
    assert "en" == await page.do(page.run, "return document.documentElement.lang")
    assert "polite" == await page.do(page.run, "return document.getElementById('said').ariaLive")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground(
    page: Page, api: httpx.AsyncClient, scheme: str
) -> None:
    """At least 4.5 to 1 everywhere, in both themes (WCAG 2.2 AA)."""
    await buried(api)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    await page.do(page.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", media)
    for path in VIEWS:
        await page.open(path)
        assert [] == await page.do(page.run, CONTRAST), path


async def test_it_fits_a_narrow_screen(page: Page) -> None:
    """Tables scroll by themselves; the page never does sideways."""
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    await page.do(page.driver.execute_cdp_cmd, "Emulation.setDeviceMetricsOverride", size)
    try:
        for path in VIEWS:
            await page.open(path)
            wide = await page.do(page.run, "return document.documentElement.scrollWidth")
            assert wide <= 360, path
    finally:
        await page.do(page.driver.execute_cdp_cmd, "Emulation.clearDeviceMetricsOverride", {})
