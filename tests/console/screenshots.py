"""Pictures of every page: python -m tests.console.screenshots FOLDER

Light in English, dark in German, and phone width; signed in as a customer's admin and as the owner.
Exits with 1 where a page has an error in its console or is wider than its window.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avocado.billing.months import after, month_at
from avocado.console import people, sessions
from avocado.console.app import all_pages
from avocado.console.page import Route
from avocado.console.roles import Role
from avocado.console.store import open_store, place_of
from avocado.workspace import Workspace
from tests.console.demo_data import make_demo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page


@dataclass(frozen=True)
class Look:
    name: str
    scheme: Any
    locale: str
    width: int
    height: int


LOOKS = (
    Look("light", "light", "en-US", 1280, 900),
    Look("dark", "dark", "de-DE", 1280, 900),
    Look("phone", "light", "en-US", 390, 844),
)
WHO: tuple[tuple[Role, str | None], ...] = (("admin", "acme"), ("owner", None))


@contextmanager
def console_of(folder: Path) -> Iterator[str]:
    """A real console over the workspace; its address."""
    with (folder / "console.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "avocado.cli.main", "console", "--port", "0", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert child.stdout is not None
    text = ""
    for line in child.stdout:
        text += line.decode()
        if line.rstrip() == b"}":
            break
    try:
        yield str(json.loads(text)["url"])
    finally:
        child.terminate()
        child.wait(30)
        child.stdout.close()


def signed_in(workspace: Workspace, role: Role, tenant: str | None) -> str:
    """A session's token."""
    database = open_store(place_of(workspace))
    email = f"ada@{tenant or 'avocado'}.example"
    person = people.add(database, email, role, tenant, time.time_ns())
    return sessions.begin(database, person, time.time_ns(), 12, "127.0.0.1", "Chromium")


def paths_for(role: Role, routes: list[Route]) -> list[str]:
    """Every page that the role has; those about one customer or invoice show acme's."""
    month = after(month_at(time.time_ns()), -1)
    found = []
    for each in routes:
        if each.kind != "show" or role not in each.roles or not each.template:
            continue
        path = each.path.replace("{tenant}", "acme")
        if path == "/operator/invoice":
            path += f"?id=invoice/acme/{month}"
        if "{" not in path:
            found.append(path)
    return found


def shoot(browser: Browser, origin: str, token: str, paths: list[str], out: Path) -> list[str]:
    """Takes the pictures; returns what is wrong."""
    wrong: list[str] = []
    for look in LOOKS:
        context = browser.new_context(
            viewport={"width": look.width, "height": look.height},
            color_scheme=look.scheme,
            locale=look.locale,
        )
        if token:
            context.add_cookies([{"name": "av_session", "value": token, "url": origin}])
        page = context.new_page()
        watch(page, wrong)
        for path in paths:
            page.goto(origin + path)
            page.wait_for_timeout(150)
            wider = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            if wider > 0:
                wrong.append(f"{path} ({look.name}) is {wider} px wider than its window")
            name = re.sub(r"[^a-z0-9]+", "-", path).strip("-") or "start"
            page.screenshot(path=out / f"{name}-{look.name}.png", full_page=True)
        context.close()
    return wrong


def watch(page: Page, wrong: list[str]) -> None:
    """Notes what the browser's console complains about."""

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(f"{page.url}: {message.text}")

    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))


def main() -> int:
    from playwright.sync_api import sync_playwright

    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("AVOCADO_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("no chromium here: apt-get install chromium, or set AVOCADO_CHROMIUM")
        return 1
    routes = [route for pages in all_pages() for route in pages.routes]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        workspace = make_demo(Path(scratch) / "shop")
        with console_of(workspace.folder) as origin, sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            wrong += shoot(browser, origin, "", ["/sign-in"], out)
            for role, tenant in WHO:
                token = signed_in(workspace, role, tenant)
                wrong += shoot(browser, origin, token, paths_for(role, routes), out)
            browser.close()
    print(f"{len(list(out.glob('*.png')))} pictures in {out}")
    for each in dict.fromkeys(wrong):
        print(f"wrong: {each}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
