"""The dashboard as a person sees and works it: by names, words and keys."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.stack import eventually

Found = TypeVar("Found")
SECONDS = 40.0


@dataclass
class Page:
    """One open page; a live page changes while it is looked at, so every look is tried again."""

    driver: webdriver.Chrome
    url: str

    async def do(self, work: Callable[..., Found], *arguments: Any) -> Found:
        """Have the browser do something, without keeping the agents waiting."""
        return await asyncio.to_thread(work, *arguments)

    async def until(self, look: Callable[[], Any], what: str) -> Any:
        """What a look finds, as soon as it finds something."""

        def once() -> Any:
            try:
                return look()
            except WebDriverException:
                return None

        return await eventually(lambda: asyncio.to_thread(once), SECONDS, what)

    async def open(self, path: str = "/") -> None:
        """Load the page anew at a view, and wait for its first answer."""
        await self.do(self.driver.get, "about:blank")
        await self.do(self.driver.get, f"{self.url}/#{path}")
        await self.until(lambda: self.all("main section"), f"view {path}")

    async def go(self, path: str, title: str) -> None:
        """Go to another view of the loaded page."""
        await self.do(self.driver.execute_script, "location.hash = arguments[0]", path)
        await self.until(
            lambda: title in self.one("h1").text and self.all("main section"), f"view {path}"
        )

    def all(self, selector: str) -> list[WebElement]:
        """The elements that there are now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first such element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """What it says, however it is laid out."""
        return " ".join(self.one(selector).text.split())

    async def sees(self, words: str, selector: str = "main") -> str:
        """Wait until it says so; all that it says then."""

        def said() -> str:
            text = self.text(selector)
            return text if words in text else ""

        found: str = await self.until(said, f"{words!r} in {selector}")
        return found

    def button(self, name: str, within: str = "body") -> WebElement | None:
        """The button with this accessible name."""
        found = [each for each in self.all(f"{within} button") if each.accessible_name == name]
        return found[0] if found else None

    async def press(self, name: str, within: str = "body") -> None:
        """Click the button with this accessible name."""

        def click() -> bool:
            button = self.button(name, within)
            if button is None:
                return False
            button.click()
            return True

        await self.until(click, f"button {name!r}")

    async def confirm(self, button: str, name: str, **fields: str) -> None:
        """Press a button, fill in the dialog that opens, and confirm it."""
        await self.press(button, "main")
        await self.until(lambda: self.one("dialog").get_attribute("open"), "dialog")
        for field, value in fields.items():
            await self.do(lambda f=field, v=value: self.one(f"#dialog-{f}").send_keys(v))
        await self.press(name, "dialog")
        await self.until(lambda: not self.one("dialog").get_attribute("open"), "end of the dialog")

    async def keys(self, *keys: str) -> None:
        """Type into whatever has the focus."""
        await self.do(lambda: ActionChains(self.driver).send_keys(*keys).perform())

    def focused(self) -> tuple[str, str]:
        """Role and accessible name of what has the focus."""
        element = self.driver.switch_to.active_element
        return element.aria_role, element.accessible_name

    async def tab_to(self, name: str, most: int = 60) -> None:
        """Press Tab until that has the focus."""
        for _ in range(most):
            await self.keys("\ue004")
            if name == (await self.do(self.focused))[1]:
                return
        raise AssertionError(f"{name!r} was not reached by {most} presses of Tab")

    def complaints(self) -> list[str]:
        """What the browser wrote into its log since it was last asked."""
        log: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [each["message"] for each in log if each["level"] in {"SEVERE", "WARNING"}]

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)
