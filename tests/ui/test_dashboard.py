"""The dashboard in a real browser, over the running product."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.agents import Agent, Reply
from tests.support.browser import browser
from tests.support.stack import Stack, agent_config, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

SECONDS = 30
SCRIPT = "<script>window.broken = true</script><img src=x onerror='window.broken = true'>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """The agent that the tasks call."""
    async with Agent() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The product; no task is tried twice, so that dead letters come at once."""
    config = agent_config(agent.url)
    config["error_recovery"] |= {"max_retries": 0}
    config["rate_limiting"] = {"enabled": False}
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the product's API."""
    async with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all tests of this file."""
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def page(driver: webdriver.Chrome, stack: Stack) -> webdriver.Chrome:
    """The dashboard, freshly loaded, with the agent in its table."""
    await asyncio.to_thread(driver.get, stack.url)
    await shown(driver, "#agent-rows", "test_agent")
    return driver


async def until(driver: webdriver.Chrome, found: Callable[[webdriver.Chrome], Any]) -> Any:
    """What is found in the page, as soon as it is there."""
    waiting = WebDriverWait(driver, SECONDS, ignored_exceptions=(Exception,))
    return await asyncio.to_thread(waiting.until, found)


async def shown(driver: webdriver.Chrome, selector: str, text: str) -> None:
    """Wait until an element of the page has that text in it."""
    await until(driver, lambda seen: text in seen.find_element(By.CSS_SELECTOR, selector).text)


async def click(driver: webdriver.Chrome, selector: str) -> None:
    """Click an element as soon as it takes clicks; rows are made anew now and then."""

    def clicked(seen: webdriver.Chrome) -> bool:
        seen.find_element(By.CSS_SELECTOR, selector).click()
        return True

    await until(driver, clicked)


def console(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    """What the browser's console has said since it was asked last."""
    said: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return said


async def submitted(api: httpx.AsyncClient, **payload: Any) -> str:
    """The id of a task that was taken."""
    answer = await api.post("/orchestrate", json={"pattern": "work", "payload": payload})
    return str(answer.json()["task_id"])


async def failed(agent: Agent, api: httpx.AsyncClient, body: Any = "out of order") -> str:
    """The id of a task that is among the dead letters."""
    agent.script(Reply(status=500, body=body), Reply(body={"text": "done"}))
    task_id = await submitted(api)

    async def dead() -> bool:
        return (await api.get(f"/dead-letters/{task_id}")).status_code == 200

    await eventually(dead)
    return task_id


async def test_a_new_task_appears_without_reloading(
    page: webdriver.Chrome, agent: Agent, api: httpx.AsyncClient
) -> None:
    """A mark on the window is still there when the row has come."""
    agent.script(Reply())
    page.execute_script("window.mark = 'kept'")

    task_id = await submitted(api)

    await until(page, lambda seen: seen.find_element(By.CSS_SELECTOR, f"[data-key='{task_id}']"))
    assert "kept" == page.execute_script("return window.mark")


async def test_the_attempts_of_a_task_are_told_in_order(
    page: webdriver.Chrome, agent: Agent, api: httpx.AsyncClient, stack: Stack
) -> None:
    """Its dialog names the failed attempt, the error, and links to the engine's own page."""
    task_id = await failed(agent, api)

    await click(page, f"#task-rows [data-key='{task_id}'] button")

    await shown(page, "#task-body", "Attempt 1: AgentFailed (500)")
    await shown(page, "#task-body", "out of order")
    link = page.find_element(By.CSS_SELECTOR, "#task-body a").get_attribute("href")
    assert f"http://127.0.0.1:{stack.ui_port}/namespaces/default/workflows/{task_id}" == link


async def test_a_dead_letter_is_redriven_after_a_confirmation(
    page: webdriver.Chrome, agent: Agent, api: httpx.AsyncClient
) -> None:
    """Saying no leaves it; saying yes runs the task again, and its row goes."""
    task_id = await failed(agent, api)
    button = f"#dead-rows [aria-label='redrive {task_id}']"

    await click(page, button)
    await click(page, "#confirm-no")
    assert 200 == (await api.get(f"/dead-letters/{task_id}")).status_code
    await click(page, button)
    await click(page, "#confirm-yes")

    await until(page, lambda seen: not seen.find_elements(By.CSS_SELECTOR, button))

    async def completed() -> bool:
        return bool((await api.get(f"/status/{task_id}")).json()["status"] == "completed")

    await eventually(completed)


async def test_an_agent_is_drained_and_resumed_by_keyboard_alone(
    page: webdriver.Chrome, api: httpx.AsyncClient
) -> None:
    """Enter opens the question, typing gives the reason, Enter confirms; focus is never lost."""
    for word, draining in (("drain", True), ("resume", False)):
        selector = f"[aria-label='{word} test_agent']"

        def focused(seen: webdriver.Chrome, selector: str = selector) -> bool:
            seen.find_element(By.CSS_SELECTOR, selector).send_keys(Keys.ENTER)
            return bool(seen.find_element(By.ID, "confirm").get_attribute("open") is not None)

        await until(page, focused)
        page.switch_to.active_element.send_keys("maintenance" + Keys.ENTER)

        async def ordered(draining: bool = draining) -> bool:  # noqa: FBT001 - bound early
            [instance] = (await api.get("/agents/test_agent")).json()["instances"]
            return bool(instance["draining"] is draining)

        await eventually(ordered)
    [latest, *_] = (await api.get("/agents/test_agent")).json()["events"]
    assert "maintenance" in latest["reason"]


async def test_a_tripped_breaker_is_shown_and_reset(page: webdriver.Chrome) -> None:
    """Words tell the state, beside the colour."""
    await click(page, "[aria-label='trip test_agent']")
    await click(page, "#confirm-yes")
    await shown(page, "#agent-rows", "forced open")
    await click(page, "[aria-label='reset test_agent']")
    await click(page, "#confirm-yes")
    await until(page, lambda seen: "forced" not in seen.find_element(By.ID, "agent-rows").text)


async def test_what_agents_and_callers_say_is_text(
    page: webdriver.Chrome, agent: Agent, api: httpx.AsyncClient
) -> None:
    """Markup in an error or a pattern is shown as it is, and nothing of it runs."""
    task_id = await failed(agent, api, body=SCRIPT)

    await click(page, f"#task-rows [data-key='{task_id}'] button")

    await shown(page, "#task-body", "<script>")
    assert not page.execute_script("return window.broken")


async def test_the_page_keeps_its_own_policy(page: webdriver.Chrome, stack: Stack) -> None:
    """Nothing is loaded from elsewhere, no style or script is inline, the console is silent."""
    async with stack.client() as client:
        answer = await client.get("/", headers={"Accept": "text/html"})
    policy = answer.headers["content-security-policy"]
    loaded = page.execute_script(
        "return performance.getEntriesByType('resource').map((each) => each.name)"
    )
    severe = [each["message"] for each in console(page) if each["level"] == "SEVERE"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert all(each.startswith(stack.url) for each in loaded)
    assert [] == severe


async def test_dark_and_light_are_chosen_and_kept(page: webdriver.Chrome) -> None:
    """The choice is there after a reload, and changes the colours."""
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = page.execute_script(colour)
    await click(page, "#theme")
    after = page.execute_script(colour)
    await asyncio.to_thread(page.refresh)

    assert before != after == page.execute_script(colour)


async def test_everything_has_a_name_and_a_role(page: webdriver.Chrome) -> None:
    """Buttons, fields and tables say to a screen reader what they are."""

    def names(seen: webdriver.Chrome) -> list[str]:
        parts = seen.find_elements(By.CSS_SELECTOR, "button, input, select, table, progress, nav")
        return [each.accessible_name for each in parts if each.is_displayed()]

    found = await until(page, names)

    assert len(found) > 10
    assert all(found)
    assert 1 == len(page.find_elements(By.TAG_NAME, "h1"))


async def test_the_api_going_away_is_told(page: webdriver.Chrome, stack: Stack) -> None:
    """A banner says that what is seen is old, and goes when the API answers again."""
    await asyncio.to_thread(page.execute_cdp_cmd, "Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    await shown(page, "#gone", "does not answer")
    online = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.execute_cdp_cmd("Network.emulateNetworkConditions", online)

    await until(page, lambda seen: not seen.find_element(By.ID, "gone").is_displayed())
    console(page)


async def test_thousands_of_tasks_are_paged(
    page: webdriver.Chrome, agent: Agent, api: httpx.AsyncClient
) -> None:
    """The page holds one page of rows, goes on to older ones, and back."""
    agent.script(Reply())
    turn = asyncio.Semaphore(40)

    async def one() -> None:
        async with turn:
            await api.post("/orchestrate", json={"pattern": "work", "payload": {}})

    await asyncio.gather(*(one() for _ in range(120)))
    batch = [{"pattern": "work", "payload": {}}] * 5000
    for _ in range(2):
        answer = await api.post("/orchestrate/batch", json=batch, timeout=60)
        assert 202 == answer.status_code, answer.text

    await until(page, lambda seen: seen.find_element(By.ID, "older").is_enabled())
    await click(page, "#older")
    await shown(page, "#page-number", "Page 2")
    rows = page.find_elements(By.CSS_SELECTOR, "#task-rows tr")
    assert 0 < len(rows) <= 50
    await click(page, "#newest")
    await shown(page, "#page-number", "Page 1")
    await shown(page, "#batch-rows", "5000")


async def test_clients_of_the_api_get_json_at_the_root(api: httpx.AsyncClient) -> None:
    """Who takes JSON alone is told where the pages are; the files are revalidated by their tags."""
    index = await api.get("/", headers={"Accept": "application/json"})
    script = await api.get("/dashboard/app.js")
    again = await api.get("/dashboard/app.js", headers={"If-None-Match": script.headers["etag"]})
    missing = await api.get(f"/dashboard/{uuid.uuid4()}")
    outside = await api.get("/dashboard/..%2Fapp.py")

    assert "/docs" == index.json()["docs"]
    assert (200, 304, 404, 404) == tuple(
        each.status_code for each in (script, again, missing, outside)
    )
