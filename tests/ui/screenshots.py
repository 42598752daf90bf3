"""Renew the pictures in docs/dashboard: `make screenshots`.

They show the product itself with its sample agents, after some minutes of real traffic, with
failures that the sample agents play.
"""

import asyncio
import contextlib
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from orchestrator.config_file import load
from tests.support.browser import browser
from tests.support.stack import ROOT, Stack, eventually, running

TARGET = ROOT / "docs" / "dashboard"
TRAFFIC_SECONDS = 240.0
WIDE, NARROW = (1360, 1000), (400, 900)
_random = random.Random(6)  # noqa: S311 - the pictures differ little from run to run

PROSE = {"content_id": "lesson-101"}
TASKS: list[tuple[str, dict[str, Any], float]] = [
    ("upload_pdf", {"file": "document.pdf"}, 5),
    ("translate_content", {"file": "document.pdf", "target": "de"}, 4),
    ("generate_assessment", PROSE, 3),
    ("build_knowledge_graph", PROSE, 2),
    ("create_mindmap", PROSE, 2),
    ("check_content_quality", PROSE, 2),
    ("run_local_ai", PROSE, 1),
]
FAULTS: list[tuple[dict[str, Any], float]] = [
    ({}, 20),
    ({"_fault": {"delay": 0.4}}, 5),
    ({"_fault": {"status": 503, "times": 2}}, 2),
    ({"_fault": {"status": 400}}, 0.5),
]
HOPELESS = {"_fault": {"status": 500, "times": 9}}


async def submit(api: httpx.AsyncClient, pattern: str, payload: dict[str, Any], **more: Any) -> str:
    """Hand a task in; its id, or nothing where it was refused."""
    answer = await api.post("/orchestrate", json={"pattern": pattern, "payload": payload, **more})
    return str(answer.json().get("task_id", ""))


async def traffic(api: httpx.AsyncClient) -> None:
    """Tasks at random, in waves, until cancelled."""
    while True:
        pattern, payload, _ = _random.choices(TASKS, [each[2] for each in TASKS])[0]
        fault, _ = _random.choices(FAULTS, [each[1] for each in FAULTS])[0]
        await submit(api, pattern, payload | fault, priority=_random.randint(1, 5))
        wave = 1.2 + asyncio.get_running_loop().time() % 60 / 60
        await asyncio.sleep(_random.expovariate(wave * 1.6))


@contextlib.asynccontextmanager
async def system(directory: Path) -> AsyncIterator[Stack]:
    """The product with its own configuration and quick failures."""
    environment = {
        "ORCHESTRATOR_CONFIG": str(ROOT / "config.yaml"),
        "ORCHESTRATOR_ERROR_RECOVERY__CIRCUIT_BREAKER_THRESHOLD": "6",
        "ORCHESTRATOR_RATE_LIMITING__ENABLED": "false",
    }
    async with running(directory, {}, options=(), environment=environment) as stack:
        yield stack


async def populate(api: httpx.AsyncClient) -> dict[str, str]:
    """Dead letters, a batch, orders of operators; the ids of the tasks worth a picture."""
    hopeless = [await submit(api, "generate_audio", PROSE | HOPELESS) for _ in range(2)]
    await submit(api, "apply_learning_science", {"items": []} | HOPELESS)
    for task_id in filter(None, hopeless):
        await api.get(f"/status/{task_id}", headers={"Prefer": "wait=60"})
    items = [{"pattern": "create_visual", "payload": PROSE} for _ in range(400)]
    await api.post("/orchestrate/batch", json=items)
    reason = {"reason": "moving to another machine"}
    await api.post("/agents/caching_agent/drain", json=reason)
    await api.post("/agents/database_management_agent/trip", json={"reason": "schema change"})
    slow = {"file": "document.pdf", "_fault": {"delay": 50}}
    for pattern in ("upload_pdf", "run_local_ai"):
        await submit(api, pattern, slow)
    return {"hopeless": hopeless[0]}


def ready(driver: webdriver.Chrome) -> None:
    """Wait until the view has been told everything."""
    WebDriverWait(driver, 30).until(
        lambda d: (
            d.find_elements(By.CSS_SELECTOR, "main section")
            and "As of" in d.find_element(By.ID, "foot").text
        )
    )


def picture(
    driver: webdriver.Chrome, url: str, name: str, theme: str, size: tuple[int, int]
) -> None:
    """One view in one theme."""
    driver.set_window_size(*size)
    driver.get(url)
    ready(driver)
    while driver.find_element(By.ID, "theme").text != f"Theme: {theme}":
        driver.find_element(By.ID, "theme").click()
    driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    driver.save_screenshot(str(TARGET / f"{name}.png"))


def take(stack: Stack, ids: dict[str, str], directory: Path) -> None:
    """All pictures."""
    with browser(directory, "--hide-scrollbars") as driver:
        at = f"{stack.url}/#"
        for theme in ("light", "dark"):
            driver.get("about:blank")
            picture(driver, f"{at}/", f"overview-{theme}", theme, WIDE)
        for name, path, theme in (
            ("agent-light", "/agents/content_ingestion_agent", "light"),
            ("tasks-light", "/tasks", "light"),
            ("task-dark", f"/tasks/{ids['hopeless']}", "dark"),
            ("dead-letters-light", "/dead-letters", "light"),
            ("batches-dark", "/batches", "dark"),
        ):
            driver.get("about:blank")
            picture(driver, at + path, name, theme, WIDE)
        driver.get("about:blank")
        picture(driver, f"{at}/", "narrow-light", "light", NARROW)


async def main(seconds: float = TRAFFIC_SECONDS) -> None:
    """Start the product, give it traffic, take the pictures."""
    TARGET.mkdir(exist_ok=True)
    load(ROOT / "config.yaml")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        async with system(directory / "stack") as stack, stack.client() as api:
            busy = asyncio.create_task(traffic(api))
            await asyncio.sleep(seconds)
            ids = await populate(api)

            async def some_run() -> Any:
                return (await api.get("/tasks?status=running")).json()["tasks"]

            await eventually(some_run)
            await asyncio.to_thread(take, stack, ids, directory)
            busy.cancel()


if __name__ == "__main__":
    asyncio.run(main())
