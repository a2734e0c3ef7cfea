"""Pictures of every page of the console, of a shop that is alive.

    python -m tests.browser.screenshots [--out build/screenshots] [--workspace FOLDER]

The models are those that ``avocado demo`` made: trained, evaluated, gated, released. It is run here
(minutes of CPU) unless a workspace that it made is named. Business of two months is added by
``lively``, then the real server and the real console are opened in Chromium, and each page is taken
in light and in dark, the main ones at a phone's width too.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from avocado.cli.lineups import declare, place_offer
from avocado.cli.release import Request, make_release
from avocado.workspace import Workspace
from tests.browser import lively
from tests.browser.chromium import DESKTOP, PHONE, Watch, lacks, running_chromium
from tests.browser.conftest import Place, open_place
from tests.browser.pages import pages_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DAYS: Final = 45
REQUESTS: Final = 4000
OF_DEMO: Final = ("artifacts", "cache", "keys", "pepper", "refs", "reports", "runs", "files.sqlite")
"""What is taken over of the demo's workspace: all but its customers and its money."""
ON_PHONES: Final = re.compile(
    "/(overview|keys|keys/new|playground|usage|billing|members|operator/overview"
    "|operator/customers|operator/customers/acme|operator/statement|operator/runs/.*"
    "|operator/offers/.*|operator/invoice.*|operator/audit)"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/screenshots"))
    parser.add_argument("--workspace", type=Path, help="one that `avocado demo` has made")
    given = parser.parse_args()
    if (why := lacks()) is not None:
        print(why, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch) / "shop"
        make_shop(folder, given.workspace or run_demo(Path(scratch) / "demo"))
        place = open_place(folder, stack)
        talk(place)
        shutil.rmtree(given.out, ignore_errors=True)
        with running_chromium() as browser:
            count = shoot(browser, place, given.out)
    print(f"{count} pictures in {given.out}")
    return 0


def run_demo(folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "avocado.cli.main", "demo", "--folder", str(folder)], check=True
    )
    return folder


def make_shop(folder: Path, demo: Path) -> None:
    Workspace.create(folder, "Avocado Labs")
    for name in OF_DEMO:
        source, target = demo / ".avocado" / name, folder / ".avocado" / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, target)
    workspace = lively.configure(folder, "Avocado Labs")
    lively.fill(workspace, sell(workspace), DAYS, REQUESTS)


def sell(workspace: Workspace) -> dict[str, Any]:
    """The demo's release as avocado-1 with a canary beside it, and a cheaper one."""
    store = workspace.store
    release = store.ids("release")[0]
    offers = {}
    for name, price in (("avocado-1", lively.PRICE), ("avocado-1-mini", lively.MINI)):
        store.point("offer", name, place_offer(workspace, name, release, price).id)
        offers[name] = (release, price)
    checkpoint = store.load(store.ids("checkpoint")[0])
    ask = Request("avocado-1-next", "sale", lively.PRICE)
    after, _ = make_release(workspace, checkpoint, ask)
    store.unpoint("offer", "avocado-1-next")
    canary = place_offer(workspace, "avocado-1", after.id, lively.PRICE)
    declare(workspace, "avocado-1", canary, 10)
    # A second run beside the demo's, so that there is something to compare.
    runs = workspace.state / "runs"
    first = next(each for each in runs.iterdir() if (each / "run.json").is_file())
    again = shutil.copytree(first, runs / f"{first.name}-2")
    lines = (again / "metrics.jsonl").read_text().splitlines()
    (again / "metrics.jsonl").write_text("\n".join(lines[: len(lines) * 2 // 3]) + "\n")
    (again / "checkpoint").unlink(missing_ok=True)
    return offers


def talk(place: Place) -> None:
    """A few real answers, so that the gauges show something."""
    import openai

    from avocado.cli.customers import create_key

    key = create_key(place.workspace, "globex", "from a laptop")
    client = openai.OpenAI(base_url=f"{place.api}/v1", api_key=key, max_retries=0)
    for question in ("Hello", "What day is 3 May 2024?", "Zwölf Euro fünfzig als Zahl?"):
        stream = client.chat.completions.create(
            model="avocado-1",
            messages=[{"role": "user", "content": question}],
            max_tokens=64,
            stream=True,
        )
        list(stream)


def shoot(browser: Browser, place: Place, out: Path) -> int:
    watch, count = Watch(), 0
    out.mkdir(parents=True, exist_ok=True)
    for who, tenant in (("owner", None), ("admin", "acme")):
        context = browser.new_context(viewport=DESKTOP, locale="en-GB")  # type: ignore[arg-type]
        watch.over(context)
        cookie = place.session(f"{who}@{tenant or 'avocado'}.example", who, tenant)  # type: ignore[arg-type]
        context.add_cookies([cookie])  # type: ignore[list-item]
        page = context.new_page()
        for path, url in pages_of(place.workspace, tenant is None).items():
            page.goto(place.console + url)
            if path == "/playground":
                ask(page)
            count += take(page, out, path, url)
        context.close()
    context = browser.new_context(viewport=DESKTOP, locale="en-GB")  # type: ignore[arg-type]
    page = context.new_page()
    invitation = place.link("invite", "new@acme.example", "member", "acme")
    for path, url in (("/sign-in", f"{place.console}/sign-in"), ("/link", invitation)):
        page.goto(url)
        count += take(page, out, path, path)
    context.close()
    watch.check()
    return count


def ask(page: Page) -> None:
    page.get_by_role("textbox", name="Your message").fill("What day is 3 May 2024?")
    page.keyboard.press("Enter")
    page.locator(".bill").wait_for()


def take(page: Page, out: Path, path: str, url: str) -> int:
    name = re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")
    plans = [("light", DESKTOP, ""), ("dark", DESKTOP, "")]
    if ON_PHONES.fullmatch(url.partition("?")[0]):
        plans += [("light", PHONE, "-phone"), ("dark", PHONE, "-phone")]
    for theme, size, word in plans:
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": size["width"], "height": max(size["height"], height)})
        page.screenshot(path=out / f"{name}{word}-{theme}.png")
    return len(plans)


if __name__ == "__main__":
    raise SystemExit(main())
