"""Takes the screenshots of docs/dashboard: the product with its sample agents, in real traffic.

python -m tests.ui.screenshots docs/dashboard
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import yaml
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.browser import browser
from tests.support.stack import Stack, eventually, running

CONFIG = Path("config.yaml")
UPLOAD = {"pattern": "upload_pdf", "payload": {"file": "document.pdf"}}
TRANSLATE = {
    "pattern": "translate_content",
    "payload": {"text": "Plants make food", "target": "de"},
}
BROKEN = {"pattern": "upload_pdf", "payload": {"file": "test.pdf", "_fault": {"status": 500}}}
SHAKY = {
    "pattern": "upload_pdf",
    "payload": {"file": "document.pdf", "_fault": {"status": 503, "times": 2}},
}


async def traffic(stack: Stack) -> str:
    """Tasks of all kinds; returns the id of one that needed three attempts."""
    async with stack.client() as api:
        shaky = await submit(api, SHAKY)
        await submit(api, BROKEN)
        for body in [UPLOAD, TRANSLATE] * 8:
            await submit(api, body)
        await api.post("/orchestrate/batch", json=[UPLOAD] * 40)
        await api.post("/agents/mindmap_agent/drain", json={"reason": "maintenance"})

        async def settled() -> Any:
            dead = (await api.get("/dead-letters")).json()["dead_letters"]
            done = (await api.get(f"/status/{shaky}")).json()["status"] == "completed"
            return dead and done

        await eventually(settled, 60)
    return shaky


async def submit(api: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """The id of a task that was taken."""
    answer = await api.post("/orchestrate", json=body)
    return str(answer.raise_for_status().json()["task_id"])


def shots(url: str, task_id: str, directory: Path, scratch: Path) -> None:
    """The page in light and in dark, and the timeline of one task."""
    with browser(scratch) as driver:
        driver.get(url)
        WebDriverWait(driver, 30).until(
            lambda seen: seen.find_elements(By.CSS_SELECTOR, "#dead-rows button")
        )
        whole(driver, directory / "light.png")
        driver.find_element(By.ID, "theme").click()
        whole(driver, directory / "dark.png")
        driver.find_element(By.NAME, "id").send_keys(task_id + "\n")
        WebDriverWait(driver, 10).until(
            lambda seen: "Attempt 3" in seen.find_element(By.ID, "task-body").text
        )
        driver.set_window_size(1100, 900)
        driver.save_screenshot(str(directory / "task.png"))


def whole(driver: webdriver.Chrome, path: Path) -> None:
    """The page from top to bottom."""
    height = driver.execute_script("return document.documentElement.scrollHeight")
    driver.set_window_size(1440, min(height + 120, 2600))
    driver.save_screenshot(str(path))


async def main(directory: Path) -> None:
    """Start, make traffic, look."""
    with tempfile.TemporaryDirectory() as name:
        config = yaml.safe_load(CONFIG.read_text())  # noqa: ASYNC240 - once, before anything runs
        async with running(Path(name) / "stack", config, options=()) as stack:
            task_id = await traffic(stack)
            await asyncio.to_thread(shots, stack.url, task_id, directory, Path(name))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
