"""The dashboard in a real browser, over the whole product."""

import asyncio
import json

import httpx
import pytest

from tests.support.stack import Stack, eventually, free_port
from tests.ui.page import Page
from tests.ui.work import buried, status_of, submit

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.e2e]

MANY = 10_000
LANES = "return [...document.querySelectorAll('.lane .bar')].map((e) => e.x.baseVal.value)"
EVIL = '<img src="x" onerror="window.hacked = 1"><script>window.hacked = 1</script>'


async def test_a_task_appears_and_ends_without_reloading(
    page: Page, api: httpx.AsyncClient
) -> None:
    """The list shows it running, then cancelled; the page is the same all the time."""
    await page.open("/tasks")
    await page.do(page.run, "window.marked = true")
    task_id = await submit(api, {"hang": True})

    row = f"tr:has(a[href='#/tasks/{task_id}'])"
    await page.sees("running", row)
    await api.post(f"/tasks/{task_id}/cancel")
    await page.sees("cancelled", row)

    assert await page.do(page.run, "return window.marked")


async def test_a_task_shows_its_attempts_on_a_line_of_time(
    page: Page, api: httpx.AsyncClient, stack: Stack
) -> None:
    """Two that failed and one that did not, each with what the agent said; and where to read on."""
    task_id = await submit(api, {"status": 503, "times": 2}, wait=60)

    await page.open(f"/tasks/{task_id}")
    text = await page.sees("Attempt 3", ".timeline")
    lanes = await page.do(page.run, LANES)
    links = await page.do(lambda: [each.get_attribute("href") for each in page.all("a.outward")])

    assert [2, 1] == [text.count("HTTP 503"), text.count("success")]
    assert sorted(lanes) == lanes
    assert 3 == len(set(lanes))
    ui = f"http://127.0.0.1:{stack.ui_port}/namespaces/default/workflows"
    assert [f"{ui}/{task_id}"] == links
    assert "completed" in await page.do(page.text, ".heading")


async def test_a_task_that_waits_says_for_what(page: Page, api: httpx.AsyncClient) -> None:
    """Its next attempt is told, and it can be cancelled from there."""
    task_id = await submit(api, {"hang": True})

    await page.open(f"/tasks/{task_id}")
    await page.sees("Attempt 1 running", ".timeline")
    await page.confirm("Cancel task…", "Cancel the task")
    await page.sees("cancelled", ".heading")

    assert "cancelled" == (await status_of(api, task_id))["status"]


async def test_a_dead_letter_is_redriven_after_a_confirmation(
    page: Page, api: httpx.AsyncClient
) -> None:
    """Nothing happens before; afterwards the task runs again, and leaves the list."""
    task_id = await buried(api)
    redrive = f"Redrive {task_id[:8]}…{task_id[-4:]}"
    await page.open("/dead-letters")
    await page.press(redrive)
    await page.press("Cancel", "dialog")
    before = await status_of(api, task_id)

    await page.confirm(redrive, "Redrive", reason="mended")
    said = await page.do(page.text, "#said")
    await page.until(lambda: not page.all(f"a[href='#/tasks/{task_id}']"), "an emptier list")
    after = await status_of(api, task_id)

    assert before["dead_letter"]
    assert "earlier_runs" not in before
    assert "runs again" in said
    assert 1 == len(after["earlier_runs"])


async def test_all_that_match_are_discarded_together(page: Page, api: httpx.AsyncClient) -> None:
    """They are counted before anybody confirms; the filters are the address."""
    for _ in range(2):
        await buried(api)
    await page.open("/dead-letters?agent=test_agent&error_type=AgentFailed")
    await page.press("Discard all that match…")
    text = await page.sees("dead letters match", "dialog")
    await page.press("Discard", "dialog")
    await page.sees("There are none")

    assert "will be given up" in text
    assert [] == (await api.get("/dead-letters")).json()["dead_letters"]


async def test_an_agent_is_drained_and_resumed(page: Page, api: httpx.AsyncClient) -> None:
    """One of its instances, by name; the event keeps the reason."""
    await page.open("/agents/twin_agent")
    [left, _] = (await api.get("/agents/twin_agent")).json()["instances"]

    await page.confirm(f"Drain {left['url']}", "Drain", reason="new disk")
    await page.sees("draining", "section[aria-labelledby=instances]")
    drained = (await api.get("/agents/twin_agent")).json()
    await page.sees("new disk", "section[aria-labelledby=events]")
    await page.confirm(f"Resume {left['url']}", "Resume")
    await page.until(lambda: page.button(f"Drain {left['url']}"), "the way back")
    resumed = (await api.get("/agents/twin_agent")).json()

    assert [True, False] == [each["draining"] for each in drained["instances"]]
    assert [False, False] == [each["draining"] for each in resumed["instances"]]


async def test_a_breaker_is_held_open_and_reset(page: Page, api: httpx.AsyncClient) -> None:
    """The overview shows it too, with the word and since when."""
    await page.open("/agents/twin_agent")
    await page.confirm("Hold breaker open…", "Hold open", reason="schema change")
    await page.sees("breaker held open", ".heading")
    tripped = (await api.get("/agents/twin_agent")).json()
    await page.go("/", "Overview")
    row = await page.sees("held open", "tr:has(a[href='#/agents/twin_agent'])")
    await page.go("/agents/twin_agent", "twin_agent")
    await page.confirm("Reset breaker…", "Reset")
    await page.sees("breaker closed", ".heading")

    assert "forced_open" == tripped["breaker"]
    assert "ago" in row or "now" in row
    assert "closed" == (await api.get("/agents/twin_agent")).json()["breaker"]


async def test_limits_are_set_and_a_wrong_one_is_explained(
    page: Page, api: httpx.AsyncClient
) -> None:
    """The dialog stays with what the API says; what is left empty stays as it is."""
    await page.open("/agents/twin_agent")
    await page.press("Set limits…")
    await page.do(lambda: page.one("#dialog-rate").send_keys("2000000000"))
    await page.press("Set", "dialog")
    complaint = await page.sees("rate", "dialog .complaint")
    await page.do(lambda: page.one("#dialog-rate").clear())
    await page.do(lambda: page.one("#dialog-rate").send_keys("600"))
    await page.press("Set", "dialog")
    await page.sees("600 set at run time", "section[aria-labelledby=limits]")

    assert "less than or equal" in complaint
    limits = (await api.get("/agents/twin_agent")).json()["limits"]
    assert (600, ["rate"]) == (limits["rate"], limits["set_at_run_time"])


async def test_a_waiting_tasks_priority_is_changed(page: Page, api: httpx.AsyncClient) -> None:
    """By the dialog, which begins with what it has."""
    task_id = await submit(api, {"hang": True})
    await page.open(f"/tasks/{task_id}")
    await page.press("Change priority…")
    chosen = await page.do(lambda: page.one("#dialog-priority").get_attribute("value"))
    await page.do(lambda: page.one("#dialog-priority").send_keys("5"))
    await page.press("Change", "dialog")
    await page.until(lambda: not page.one("dialog").get_attribute("open"), "end of the dialog")
    found = await status_of(api, task_id)
    await api.post(f"/tasks/{task_id}/cancel")

    assert ("3", 5) == (chosen, found["priority"])


async def test_what_a_task_carries_is_shown_as_text(page: Page, api: httpx.AsyncClient) -> None:
    """Markup in a payload, a result or an error stays what it is: characters."""
    done = await submit(api, {"answer": {"text": EVIL}}, wait=60)
    dead = await buried(api, answer=EVIL, note=EVIL)

    await page.open(f"/tasks/{done}")
    result = await page.sees("onerror", "section[aria-labelledby=outcome]")
    await page.go(f"/tasks/{dead}", f"Task {dead[:8]}")
    request = await page.sees("onerror", "section[aria-labelledby=request]")
    await page.go("/dead-letters", "Dead letters")
    await page.sees(f"{dead[:8]}…")

    assert json.dumps(EVIL)[1:-1] in result
    assert json.dumps(EVIL)[1:-1] in request
    assert not await page.do(page.run, "return window.hacked")
    assert [] == await page.do(page.all, "main img, main script")


async def test_an_api_that_is_gone_is_told_and_waited_for(page: Page, stack: Stack) -> None:
    """A banner keeps what is known; when the API is back the page goes on by itself."""
    port = free_port()
    other = Page(page.driver, f"http://127.0.0.1:{port}")

    async def answers() -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{other.url}/health")).status_code == 200
        except httpx.HTTPError:
            return False

    async with stack.joined("api", port):
        await eventually(answers, 60)
        await other.open()
        await other.do(page.run, "window.marked = true")
    banner = await other.sees("The API does not answer", "#banner")
    kept = await other.do(other.text, "main")
    async with stack.joined("api", port):
        await other.until(lambda: not other.one("#banner").is_displayed(), "end of the banner")
        marked = await other.do(page.run, "return window.marked")

    assert "What is shown is of" in banner
    assert "twin_agent" in kept
    assert marked


async def test_live_updates_can_be_paused(page: Page, api: httpx.AsyncClient) -> None:
    """Nothing moves while somebody reads; then it goes on."""
    await page.open("/tasks")
    await page.press("Live")
    pressed = await page.do(lambda: page.one("#live").get_attribute("aria-pressed"))
    await page.sees("paused", "#foot")
    task_id = await submit(api, {}, wait=60)
    still = task_id[:8] in await page.do(page.text, "main")
    await page.press("Live")
    await page.sees(task_id[:8])

    assert ("false", False) == (pressed, still)


async def test_ten_thousand_tasks_are_paged(page: Page, api: httpx.AsyncClient) -> None:
    """A batch of them moves on by itself; a page has fifty, and the document stays small."""
    task = {"pattern": "work", "payload": {}}
    answer = await api.post("/orchestrate/batch", json=[task] * MANY)
    batch_id = answer.json()["batch_id"]
    await asyncio.gather(*(submit(api, {}) for _ in range(60)))

    await page.open("/batches")
    await page.sees("10,000", f"tr:has(a[href='#/batches/{batch_id}'])")
    await page.go(f"/batches/{batch_id}", f"Batch {batch_id[:8]}")
    await page.until(lambda: "Completed 0 " not in page.text("main"), "progress")
    first = await page.do(lambda: [each.text for each in page.all("tbody th")])
    await page.do(lambda: page.one(".pager a:last-child").click())
    await page.sees("Page 2")
    await page.until(lambda: page.one("tbody th").text != first[0], "the second page")
    second = await page.do(lambda: [each.text for each in page.all("tbody th")])
    size = await page.do(page.run, "return document.querySelectorAll('*').length")

    await page.go("/tasks", "Tasks")
    listed = await page.until(lambda: len(page.all("tbody tr")) >= 50, "a full page")
    await page.do(lambda: page.one(".pager a:last-child").click())
    await page.sees("Page 2")
    await page.do(lambda: page.one(".pager a:first-child").click())
    await page.sees("Page 1")

    await api.post(f"/batches/{batch_id}/cancel")

    assert (50, 50) == (len(first), len(second))
    assert not set(first) & set(second)
    assert size < 2500
    assert listed
