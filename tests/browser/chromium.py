"""Finds Chromium, starts it, and watches what its pages complain about."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
DESKTOP: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 390, "height": 844}
WAIT: Final = 15_000
"""Milliseconds that anything may take on a busy machine."""


def find_chromium() -> str | None:
    """The browser to test with: $AVOCADO_CHROMIUM, or the first that is installed."""
    given = os.environ.get("AVOCADO_CHROMIUM")
    return given or next((found for each in NAMES if (found := shutil.which(each))), None)


def lacks() -> str | None:
    """Why nothing can be tested with a browser here, and how to get it; None if all is there."""
    try:
        import axe_playwright_python  # type: ignore[import-untyped]
        import playwright
    except ImportError as error:
        return f"no {error.name}: pip install -e '.[dev]'"
    assert axe_playwright_python
    assert playwright
    if find_chromium() is None:
        names = ", ".join(NAMES)
        return (
            f"none of {names} is installed: apt-get install chromium "
            "(or name a browser's path in AVOCADO_CHROMIUM)"
        )
    return None


@contextmanager
def running_chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@dataclass
class Watch:
    """What went wrong in the pages of a context. ``expected`` are answers of 400 and above that a
    test asks for itself; a browser says each on its console once more."""

    wrong: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)

    def over(self, context: BrowserContext) -> None:
        context.on("page", self._page)

    def _page(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"{page.url}: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        told = any(f"status of {each}" in message.text for each in self.expected)
        if message.type in ("error", "warning") and not told:
            self.wrong.append(f"{message.location.get('url')}: {message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        # A page that is left lets go of its streams, and a download is no page.
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"{request.method} {request.url}: {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.wrong.append(f"{response.request.method} {response.url}: {response.status}")

    def check(self) -> None:
        wrong, self.wrong = self.wrong, []
        assert not wrong, "\n".join(wrong)
