"""One real shop for all tests with a browser: ``avocado serve``, ``avocado console``, Chromium."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from avocado.cli.console import people_of
from avocado.cli.keeping import keep_signed
from avocado.cli.lineups import place_offer
from avocado.console import links, people, sessions
from avocado.console.roles import Role
from avocado.data.chat import ChatTemplate
from avocado.demo.server import running
from avocado.evaluate.scorecard import write_results
from avocado.release.signature import signing_key
from avocado.workspace import Workspace
from tests.browser import lively
from tests.browser.chromium import DESKTOP, WAIT, Watch, lacks, running_chromium
from tests.console.test_operator_models import keep_release, keep_run
from tests.evaluate.rows import card, scored

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
BASE: Final = {
    "name": "seedling", "revision": None, "architecture": "Qwen3ForCausalLM",
    "licence": "Apache-2.0", "licence_sha256": "a" * 64,
}  # fmt: skip
CHECKPOINT: Final = {
    "method": "sft", "weights": "full", "steps": 30, "seed": 1, "recipe_sha256": "b" * 64,
    "flops": 10**15,
}  # fmt: skip
MISSING: Final = lacks()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MISSING is None:
        return
    if os.environ.get("CI"):
        print(f"\nNOT TESTED IN A BROWSER: {MISSING}\n", file=sys.stderr)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"NOT TESTED IN A BROWSER: {MISSING}"))


@dataclass
class Place:
    """A shop that runs. ``first_link`` lets the first operator in, once."""

    workspace: Workspace
    api: str
    console: str
    first_link: str

    def link(self, kind: links.Kind, email: str, role: Role, tenant: str | None) -> str:
        """A link for a person, as ``avocado console link`` makes one."""
        with people_of(self.workspace) as database:
            token = links.make(database, kind, email, role, tenant, "test", time.time_ns())
        return f"{self.console}/link/{token}"

    def session(self, email: str, role: Role, tenant: str | None) -> dict[str, Any]:
        """The cookie of a person who has signed in already."""
        with people_of(self.workspace) as database:
            now = time.time_ns()
            person = people.by_email(database, email) or people.add(
                database, email, role, tenant, now
            )
            token = sessions.begin(database, person, now, 12, "127.0.0.1", "Chromium")
        return {"name": "av_session", "value": token, "url": self.console}


def sell_seedling(workspace: Workspace) -> dict[str, Any]:
    """A release of the seedling as avocado-1, and one that was proven, without weights."""
    store = workspace.store
    with store.stage() as staging:
        shutil.copytree(SEEDLING, staging.folder, dirs_exist_ok=True)
        template = ChatTemplate.load(SEEDLING).sha256
        facts = {"name": "avocado-1", "template_sha256": template, "gate": {"purpose": "sale"}}
        private, _ = signing_key(workspace.state)
        release = keep_signed(workspace, staging, facts, {}, private, None)
    offer = place_offer(workspace, "avocado-1", release.id, lively.PRICE)
    store.point("offer", "avocado-1", offer.id)
    for name, rate in (("dates-1", 0.001), ("dates-2", 0.002)):
        keep_run(workspace, name, rate)
    with store.stage() as staging:
        (staging.folder / "README").write_text("what was trained: no page loads its weights")
        base = staging.keep("base", BASE).id
    with store.stage() as staging:
        (staging.folder / "README").write_text("what came of it")
        checkpoint = staging.keep("checkpoint", CHECKPOINT, {"base": base}).id
    parents = {"base": base, "checkpoint": checkpoint}
    cards = [_card(workspace, seed, parents) for seed in (1, 2)]
    keep_release(workspace, cards[0])
    return {"avocado-1": (release.id, lively.PRICE)}


def _card(workspace: Workspace, seed: int, parents: dict[str, str]) -> str:
    suite = scored({"en": (0.3, 0.9), "de": (0.4, 0.8)}, seed=seed, name="dates")
    with workspace.store.stage() as staging:
        write_results(staging.folder, [suite])
        return staging.keep("scorecard", card(suite).facts(), parents).id


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if MISSING is not None:
        pytest.skip(MISSING)
    with running_chromium() as found:
        yield found


def open_place(folder: Path, stack: ExitStack) -> Place:
    """Both processes. The server listens where avocado.toml does not say: the console finds it."""
    api = stack.enter_context(running(folder, "serve", 0))
    told = stack.enter_context(
        running(folder, "console", Workspace.open(folder).config.console.port)
    )
    return Place(Workspace.open(folder), str(api["url"]), str(told["url"]), str(told["first_link"]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Six customers, two months of business, and both processes."""
    folder = tmp_path_factory.mktemp("browser") / "shop"
    workspace = lively.make_workspace(folder)
    lively.fill(workspace, sell_seedling(workspace), days=34, requests=100)
    with ExitStack() as stack:
        yield open_place(folder, stack)


Visitor = Callable[..., "Page"]


@pytest.fixture
def visitor(browser: Browser, place: Place) -> Iterator[Visitor]:
    """Makes pages of browsers that share nothing: nobody is signed in, or the person of a role.

    At the end no page may have complained, but for the statuses in ``expected``."""
    opened: list[tuple[BrowserContext, Watch]] = []

    def visit(
        role: Role | None = None,
        tenant: str | None = None,
        email: str = "",
        expected: tuple[int, ...] = (),
        **options: Any,
    ) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **options})
        context.set_default_timeout(WAIT)
        watch = Watch(expected=set(expected))
        watch.over(context)
        opened.append((context, watch))
        if role is not None:
            address = email or f"{role}@{tenant or 'avocado'}.example"
            context.add_cookies([place.session(address, role, tenant)])  # type: ignore[list-item]
        return context.new_page()

    yield visit
    for context, _ in opened:
        context.close()
    for _, watch in opened:
        watch.check()
