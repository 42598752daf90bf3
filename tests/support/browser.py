"""A real browser, without a window."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service


@contextmanager
def browser(directory: Path, *arguments: str) -> Iterator[webdriver.Chrome]:
    """Headless Chromium; where there is none the test is skipped, in CI it fails."""
    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        reason = "chromium and chromedriver are not installed (apt install chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        # A click goes where the element was; it must not be scrolling there still.
        "--force-prefers-reduced-motion",
        "--window-size=1440,1000",
        f"--user-data-dir={directory / 'chromium'}",
        *arguments,
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(driver_path))
    try:
        yield driver
    finally:
        driver.quit()
