"""A shop with two customers, its console in this process, and browsers of a kind."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from avocado.cli.lineups import place_offer
from avocado.console import people, sessions
from avocado.console.app import build_console
from avocado.console.console import Console
from avocado.console.roles import Role
from avocado.console.store import open_store
from avocado.gateway.keys import mint
from avocado.ledger import operation as o
from avocado.ledger.ledger import open_ledger
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace

ORIGIN = "http://testserver"
PRICE = PriceSheet(200_000_000, 800_000_000, currency="EUR")
NANO = 1_000_000_000
DAY = 86_400 * NANO
SELLER = """
[seller]
name = "Avocado Labs GmbH"
address = ["Torstraße 1"]
postcode = "10119"
city = "Berlin"
country = "DE"
vat_id = "DE136695976"
"""


REAL_HASHER = people.hasher


@cache
def quick_hasher() -> PasswordHasher:
    return PasswordHasher(time_cost=2, memory_cost=512, parallelism=1)


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id that takes a millisecond: what is tested is not how slow it is."""
    monkeypatch.setattr(people, "hasher", quick_hasher)


@cache
def _template() -> Path:
    """A shop that is made once and copied for each test; the folder goes with the process."""
    folder = Path(_templates.name) / "shop"
    Workspace.create(folder, "Shop")
    _configure(folder, "")
    _fill(Workspace.open(folder))
    return folder


_templates = tempfile.TemporaryDirectory(prefix="avocado-console-")


def make_shop(folder: Path, more: str = "") -> Workspace:
    """Two customers with a key, money and a charge each; one model; nothing that loads weights."""
    if "[ledger]" in more:
        Workspace.create(folder, "Shop")
        _configure(folder, more)
        return _fill(Workspace.open(folder))
    shutil.copytree(_template(), folder)
    _configure(folder, more)
    return Workspace.open(folder)


def _configure(folder: Path, more: str) -> None:
    (folder / "avocado.toml").write_text(f'name = "Shop"\ncurrency = "EUR"\n{SELLER}\n{more}')


def _fill(workspace: Workspace) -> Workspace:
    with open_ledger(workspace.ledger) as ledger:
        ledger.do_now(o.PublishPrice(terms=PRICE.terms()))
        for tenant in ("acme", "globex"):
            ledger.do_now(o.OpenCustomer(tenant=tenant, name=tenant.title(), currency="EUR"))
            ledger.do_now(
                o.Deposit(id=f"pay_{tenant}", tenant=tenant, amount=5 * NANO, currency="EUR")
            )
            key = mint(workspace.pepper())
            ledger.do_now(
                o.AddKey(
                    key_id=key.id,
                    tenant=tenant,
                    name=f"{tenant} key",
                    digest=key.digest,
                    created=time.time_ns(),
                )
            )
            ledger.do_now(
                o.Hold(
                    id=f"req-{tenant}",
                    tenant=tenant,
                    offer="avocado-1",
                    release="release-" + "a" * 64,
                    price_version=PRICE.version,
                    prompt_tokens=1000,
                    max_tokens=1000,
                    key_id=key.id,
                )
            )
            ledger.do_now(o.Settle(hold=f"req-{tenant}", usage=Usage(1000, 500)))
    facts = {"name": "avocado-1", "template_sha256": None, "gate": {"purpose": "sale"}}
    with workspace.store.stage() as staging:
        (staging.folder / "README").write_text("no weights: nothing of the console loads any")
        release = staging.keep("release", facts)
    offer = place_offer(workspace, "avocado-1", release.id, PRICE)
    workspace.store.point("offer", "avocado-1", offer.id)
    return workspace


@dataclass
class Clock:
    """The console's clock, which goes when it is told to."""

    now: int = field(default_factory=time.time_ns)

    def __call__(self) -> int:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * NANO)


@dataclass
class House:
    """A console and its browsers."""

    console: Console
    app: Any
    clock: Clock

    def browser(self, **headers: str) -> Browser:
        """A browser that nobody is signed in with."""
        return Browser(TestClient(self.app, ORIGIN, follow_redirects=False), headers)

    def person(self, role: Role = "admin", tenant: str | None = "acme") -> people.Person:
        database = open_store(self.console.place)
        email = f"{role}@{tenant or 'operator'}.example"
        found = people.by_email(database, email)
        return found or people.add(database, email, role, tenant, self.clock.now)

    def signed_in(self, role: Role = "admin", tenant: str | None = "acme") -> Browser:
        """A browser in which a person of that role is signed in."""
        database = open_store(self.console.place)
        token = sessions.begin(
            database, self.person(role, tenant), self.clock.now, 12, "127.0.0.1", "test"
        )
        browser = self.browser()
        browser.http.cookies.set("av_session", token)
        return browser


class Browser:
    """Gets pages and sends the forms on them as a browser does, token and origin included."""

    def __init__(self, http: TestClient, headers: dict[str, str]) -> None:
        self.http = http
        self._headers = headers

    def get(self, path: str, **headers: str) -> Any:
        return self.http.get(path, headers={**self._headers, **headers})

    def csrf(self, page: str) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', self.get(page).text)
        assert found, f"{page} has no form"
        return found[1]

    def post(self, path: str, data: dict[str, Any] | None = None, page: str = "/settings") -> Any:
        """Sends a form that stands on ``page``."""
        fields = {"csrf": self.csrf(page), "once": "0" * 24, **(data or {})}
        headers = {**self._headers, "origin": ORIGIN, "sec-fetch-site": "same-origin"}
        return self.http.post(path, data=fields, headers=headers)


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[MakeHouse]:
    opened: list[Console] = []

    def make(more: str = "", origin: str = ORIGIN) -> House:
        clock = Clock()
        console = Console(make_shop(tmp_path / "shop", more), origin, clock=clock)
        opened.append(console)
        return House(console, build_console(console), clock)

    yield make
    for console in opened:
        console.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for a whole file of tests."""
    clock = Clock()
    console = Console(make_shop(tmp_path_factory.mktemp("house") / "shop"), ORIGIN, clock=clock)
    yield House(console, build_console(console), clock)
    console.close()
