"""Every page of the console with something on it, by role; and what must hold for each."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from avocado.console.app import all_pages
from avocado.ledger.reader import open_reader
from avocado.workspace import Workspace
from tests.browser.chromium import DESKTOP, PHONE

if TYPE_CHECKING:
    from playwright.sync_api import Page

FILES: Final = {
    "/usage.csv",
    "/billing/documents/{form}/{id:path}",
    "/operator/statement.csv",
    "/operator/invoice/pdf",
    "/operator/scorecards/{card}/report",
}
"""Routes that are no page of ours but a file."""
DOORS: Final = {"/", "/sign-in", "/link/{token}", "/oidc/start", "/oidc/callback", "/operator"}
"""Routes for people who are not signed in, and those that only lead on."""
MAIN: Final = {
    "/overview", "/keys/new", "/playground", "/billing", "/operator/overview",
    "/operator/customers/{tenant}", "/operator/invoice", "/operator/offers/{name}",
}  # fmt: skip
"""Pages that every run of the tests shows to axe; the others are the slow tests' matter."""
SERIOUS: Final = ("serious", "critical")


def pages_of(workspace: Workspace, operator: bool) -> dict[str, str]:
    """Route → a URL of it that shows something."""
    known = _operator(workspace) if operator else _customer(workspace)
    routes = [route for room in all_pages() for route in room.routes if route.kind == "show"]
    role = "owner" if operator else "admin"
    for route in routes:
        if route.path in FILES | DOORS or role not in route.roles:
            continue
        known.setdefault(route.path, route.path)
        assert "{" not in known[route.path], f"{route.path}: name a URL of it in tests/browser"
    return known


def _operator(workspace: Workspace) -> dict[str, str]:
    ids = workspace.store.ids
    cards, release = ids("scorecard"), ids("release")[-1]
    runs = sorted(each.name for each in (workspace.state / "runs").glob("[!.]*"))
    with open_reader(workspace.ledger) as reader:
        invoices = [each.id for each in reader.documents("invoice")]
        charge = next(iter(reader.charges("acme"))).request
    usage = next((each for each in invoices if "/topup/" not in each), invoices[0])
    return {
        "/operator/customers/{tenant}": "/operator/customers/acme",
        "/operator/invoice": f"/operator/invoice?id={usage}",
        "/operator/runs/{name}": f"/operator/runs/{runs[0]}",
        "/operator/compare-runs": "/operator/compare-runs?" + _many("run", runs[:2]),
        "/operator/scorecards/{card}": f"/operator/scorecards/{cards[0]}",
        "/operator/scorecards/compare": "/operator/scorecards/compare?" + _many("card", cards[:2]),
        "/operator/releases/{release}": f"/operator/releases/{release}",
        "/operator/artifacts/{artifact}": f"/operator/artifacts/{release}",
        "/operator/trace": f"/operator/trace?id={charge}",
        "/operator/offers/{name}": "/operator/offers/avocado-1",
    }


def _many(name: str, values: list[str]) -> str:
    return "&".join(f"{name}={each}" for each in values)


def _customer(workspace: Workspace) -> dict[str, str]:
    with open_reader(workspace.ledger) as reader:
        key = reader.keys("acme")[0].key_id
    return {"/keys/{key}": f"/keys/{key}"}


def check_axe(page: Page, where: str, rules: tuple[str, ...] = ()) -> list[str]:
    """What axe calls serious or critical; ``rules``: only these."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{where}: {each['id']}: {each['help']}: {node['html'][:160]} {node.get('target')}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"][:3]
    ]


def check_width(page: Page, where: str) -> list[str]:
    """What makes a page wider than its window."""
    wide = page.evaluate(
        """() => {
        const width = document.documentElement.clientWidth;
        if (document.documentElement.scrollWidth <= width) return [];
        return [...document.querySelectorAll('body *')]
          .filter(each => each.getBoundingClientRect().right > width + 1)
          .filter(each => !each.parentElement.closest('.scroll, pre, svg'))
          .slice(0, 3).map(each => each.outerHTML.slice(0, 120));
        }"""
    )
    return [f"{where}: wider than {page.viewport_size}: {each}" for each in wide]


def check_page(page: Page, url: str, with_axe: bool = True) -> list[str]:
    """All that must hold of a page, in both themes and both widths."""
    answer = page.goto(url)
    status = 0 if answer is None else answer.status
    if status != 200:
        return [f"{url}: {status}"]
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    found = check_width(page, url)
    if with_axe:
        page.emulate_media(color_scheme="light")
        found += check_axe(page, url)
        page.emulate_media(color_scheme="dark")
        found += check_axe(page, f"{url} (dark)", ("color-contrast",))
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    return found + check_width(page, f"{url} (phone)")


# -- German ---------------------------------------------------------------------------------------


def catalogue() -> tuple[set[str], set[str]]:
    """All English and all German texts, without those that have something to fill in."""
    english, german = set(), set()
    for file in (resources.files("avocado.console") / "words").iterdir():
        if file.name.endswith(".toml"):
            for section in tomllib.loads(file.read_text("utf-8")).values():
                for pair in _pairs(section):
                    english.add(pair[0])
                    german.add(pair[1])
    return english, german


def _pairs(section: Any) -> list[list[str]]:
    if isinstance(section, list):
        return [section]
    return [pair for each in section.values() for pair in _pairs(each)]


def texts(page: Page) -> set[str]:
    """What a person reads or hears on the page."""
    found: list[str] = page.evaluate(
        """() => {
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
        while (walk.nextNode()) found.push(walk.currentNode.textContent.trim());
        for (const each of document.querySelectorAll('[aria-label], [placeholder], [title]'))
          for (const name of ['aria-label', 'placeholder', 'title'])
            if (each.hasAttribute(name)) found.push(each.getAttribute(name).trim());
        return found;
        }"""
    )
    return {each for each in found if each}


# -- keyboard -------------------------------------------------------------------------------------


def focus(page: Page) -> dict[str, str]:
    """What has the focus, and how one sees it."""
    found: dict[str, str] = page.evaluate(
        """() => { const each = document.activeElement, style = getComputedStyle(each);
        return { name: each.name || '', text: (each.textContent || '').trim(),
          href: each.getAttribute('href') || '',
          outline: style.outlineStyle === 'none' ? '' : style.outlineWidth }; }"""
    )
    return found


def tab_to(page: Page, **wanted: str) -> None:
    """Tabs on until something with these properties has the focus; all on the way are visible."""
    for _ in range(40):
        page.keyboard.press("Tab")
        found = focus(page)
        assert found["outline"] not in ("", "0px"), f"no visible focus: {found}"
        if all(found[name] == value for name, value in wanted.items()):
            return
    raise AssertionError(f"Tab never reaches {wanted}")
