"""``avocado plans``, ``subscriptions``, ``coupons``, ``alerts`` and ``billing run``, as typed."""

from __future__ import annotations

import http.server
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from avocado.cli.billing import Clerk
from avocado.cli.book import writing
from avocado.ledger import operation as o
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace
from tests.cli.conftest import Avocado
from tests.cli.serving import make_shop, serving

EXAMPLES = Path(__file__).parents[2] / "recipes" / "plans"
PRO = """
name = "pro"
kind = "subscription"
[subscription]
fee = "30.00"
included = [{ tokens = 100_000 }]
[trial]
days = 14
tokens = 500
[limits]
requests_per_minute = 60
"""
BASIC = 'name = "basic"\nkind = "subscription"\nsubscription = { fee = "10.00" }\n'


@pytest.fixture
def shop(tmp_path: Path, avocado: Avocado) -> Path:
    """A workspace with two plans, and acme with 100 USD."""
    folder = tmp_path / "shop"
    Workspace.create(folder)
    for name, text in (("pro", PRO), ("basic", BASIC)):
        (folder / f"{name}.toml").write_text(text)
        assert avocado(folder, "plans", "publish", f"{name}.toml").code == 0
    assert avocado(folder, "customer", "add", "acme", "--credit", "100").code == 0
    return folder


def listed(avocado: Avocado, folder: Path) -> list[dict[str, Any]]:
    """The customers, as a program sees them."""
    rows: Any = avocado(folder, "customer", "list", "--json").json
    return list(rows)


def policy(avocado: Avocado, folder: Path) -> dict[str, Any]:
    """What the record of the gateway's policies says last of each term of acme's."""
    found: dict[str, Any] = {}
    rows: Any = avocado(folder, "customer", "log", "acme", "--json").json
    for row in rows:
        found |= {name: each["new"] for name, each in row["changed"].items()}
    return found


def test_plans(shop: Path, avocado: Avocado) -> None:
    assert "says the same already" in avocado(shop, "plans", "publish", "pro.toml").out
    (shop / "pro.toml").write_text(PRO.replace("30.00", "35.00"))
    again: Any = avocado(shop, "plans", "publish", "pro.toml", "--json").json
    assert (again["plan"], again["version"], again["fee"], again["new"]) == (
        "pro",
        2,
        "35.00",
        True,
    )
    newest: Any = avocado(shop, "plans", "list", "--json").json
    assert [(row["plan"], row["version"]) for row in newest] == [("pro", 2), ("basic", 1)]
    every: Any = avocado(shop, "plans", "list", "--all", "--json").json
    assert len(every) == 3
    shown = avocado(shop, "plans", "show", "pro@1").out
    assert "30.00 USD a month" in shown
    assert "trial of 14 days: 500 tokens, once a customer" in shown
    assert "35.00" in avocado(shop, "plans", "list").out
    (shop / "bad.toml").write_text(PRO + "colour = 1\n")
    bad = avocado(shop, "plans", "publish", "bad.toml")
    assert (bad.code, "colour" in bad.err) == (1, True)
    (shop / "offers.toml").write_text('offers = ["gold"]\n' + PRO)
    assert "nothing is offered as 'gold'" in avocado(shop, "plans", "publish", "offers.toml").err
    assert avocado(shop, "plans", "publish", "away.toml").err.startswith("refused: away.toml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_example_plans_can_be_published(shop: Path, avocado: Avocado, path: Path) -> None:
    shutil.copy(path, shop / "example.toml")
    assert avocado(shop, "plans", "publish", "example.toml").code == 0


def test_a_subscriptions_life(shop: Path, avocado: Avocado) -> None:
    started: Any = avocado(shop, "subscriptions", "start", "acme", "pro", "--json").json
    assert (started["plan"], started["state"], started["charged"]) == ("pro@1", "active", "30.00")
    assert policy(avocado, shop) == {"plan": "pro", "requests_per_minute": 60}
    shown = avocado(shop, "subscriptions", "show", "acme").out
    assert "100,000 of 100,000 tokens of every offer are left" in shown
    assert "basic@1" in avocado(shop, "subscriptions", "change", "acme", "basic").out
    moved: Any = avocado(shop, "subscriptions", "change", "acme", "basic", "--now", "--json").json
    assert (moved["plan"], moved["charged"]) == ("basic@1", "10.00")
    assert policy(avocado, shop) == {"plan": "basic", "requests_per_minute": None}
    ending: Any = avocado(shop, "subscriptions", "cancel", "acme", "--json").json
    assert (ending["state"], ending["then"]) == ("active", "no plan")
    assert "from" in avocado(shop, "subscriptions", "change", "acme", "basic").out
    over = avocado(shop, "subscriptions", "cancel", "acme", "--now", "--reason", "moved away")
    assert "no plan any more: moved away" in over.out
    assert policy(avocado, shop)["plan"] is None
    (customer,) = listed(avocado, shop)
    assert customer["available"] == "100.00"  # all in one day: nothing was used
    assert "ended" in avocado(shop, "subscriptions", "list").out
    assert avocado(shop, "verify", "--deep").code == 0


def test_a_trial(shop: Path, avocado: Avocado) -> None:
    started: Any = avocado(shop, "subscriptions", "start", "acme", "pro", "--trial", "--json").json
    assert (started["state"], started["charged"]) == ("trial", None)
    avocado(shop, "subscriptions", "cancel", "acme", "--now")
    again = avocado(shop, "subscriptions", "start", "acme", "pro", "--trial")
    assert "had its trial: it is given once" in again.err


def test_packs(shop: Path, avocado: Avocado) -> None:
    shutil.copy(EXAMPLES / "packs.toml", shop)
    avocado(shop, "plans", "publish", "packs.toml")
    avocado(shop, "subscriptions", "start", "acme", "packs")
    for new in (True, False):
        bought: Any = avocado(
            shop, "subscriptions", "pack", "acme", "1", "--id", "order-7", "--json"
        ).json
        assert (bought["new"], bought["available"]) == (new, "105.00")
    assert "is short of" in avocado(shop, "subscriptions", "pack", "acme", "2").err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["subscriptions", "start", "nobody", "pro"], 1, "no customer 'nobody'"),
        (["subscriptions", "start", "acme", "gold"], 1, "no plan 'gold'"),
        (["subscriptions", "start", "acme", "pro@7"], 1, "its newest version is 1"),
        (["subscriptions", "change", "acme", "pro"], 1, "acme is on no plan"),
        (["subscriptions", "cancel", "acme"], 1, "acme is on no plan"),
        (["subscriptions", "show", "nobody"], 1, "no customer"),
        (["subscriptions", "pack", "acme"], 1, "acme is on no plan"),
        (["coupons", "create", "X1Y"], 2, "one of --percent"),
        (["coupons", "create", "X1Y", "--percent", "101"], 2, "no percentage"),
        (
            ["coupons", "create", "X1Y", "--percent", "1", "--days", "3"],
            2,
            "--days is for --credit",
        ),
        (["coupons", "create", "x1y", "--percent", "1"], 1, "capital letters"),
        (["coupons", "redeem", "NONE", "acme"], 1, "no coupon 'NONE'"),
        (["alerts", "add", "acme", "--spend", "1"], 1, "say where it goes"),
        (["alerts", "add", "acme", "--email", "a@b.c"], 2, "say when"),
        (["alerts", "add", "acme", "--spend", "1", "--email", "a"], 1, "no mail address"),
        (["alerts", "add", "acme", "--spend", "1", "--webhook", "http://x.y/"], 1, "https://"),
        (["alerts", "add", "nobody", "--spend", "1", "--email", "a@b.c"], 1, "no customer"),
        (["alerts", "remove", "acme", "3"], 1, "no alert 3"),
        (["alerts", "test", "acme", "3"], 1, "no alert 3"),
        (["billing", "run", "--every", "0"], 2, "--every"),
    ],
)
def test_refusals(shop: Path, avocado: Avocado, words: list[str], code: int, said: str) -> None:
    ran = avocado(shop, *words)
    assert (ran.code, said in ran.err) == (code, True), ran.err


def test_coupons(shop: Path, avocado: Avocado) -> None:
    made: Any = avocado(
        shop, "coupons", "create", "SPRING", "--percent", "12.5", "--periods", "3", "--json"
    ).json
    assert (made["value"], made["periods"], made["redeemed"]) == ("12.5", 3, 0)
    assert "as number 1" in avocado(shop, "coupons", "redeem", "SPRING", "acme").out
    assert "already" in avocado(shop, "coupons", "redeem", "SPRING", "acme").err
    started: Any = avocado(shop, "subscriptions", "start", "acme", "pro", "--json").json
    assert started["charged"] == "26.25"
    avocado(shop, "coupons", "create", "GIFT", "--credit", "5", "--days", "30", "--most", "1")
    avocado(shop, "coupons", "redeem", "GIFT", "acme")
    told = avocado(shop, "coupons", "list").out
    assert "12.5 % off the next 3 fees" in told
    assert "1 of 1" in told


# -- alerts ----------------------------------------------------------------------------------------


class Hooks(http.server.HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.got: list[tuple[dict[str, str], bytes]] = []


class _Hook(http.server.BaseHTTPRequestHandler):
    server: Hooks

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks() as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.shutdown()


def test_an_alert_reaches_a_webhook_and_its_secret_is_shown_once(
    shop: Path, avocado: Avocado, hooks: Hooks
) -> None:
    from standardwebhooks.webhooks import Webhook

    with (shop / "avocado.toml").open("a") as file:
        file.write('\n[billing]\nwebhook_networks = ["127.0.0.0/8"]\n')
    url = f"http://127.0.0.1:{hooks.server_address[1]}/"
    words = ("alerts", "add", "acme", "--webhook", url, "--json")
    added: Any = avocado(shop, *words, "--balance", "500").json
    again: Any = avocado(shop, *words, "--spend", "1").json
    assert added["secret"].startswith("whsec_")
    assert "secret" not in again  # the same address has the same secret
    assert added["secret"] not in avocado(shop, "alerts", "list", "--json").out
    assert avocado(shop, "alerts", "test", "acme", "1").code == 0
    ran: Any = avocado(shop, "billing", "run", "--json").json
    assert [each["what"] for each in ran] == ["written", "sent"]
    assert avocado(shop, "billing", "run").out == "Nothing was due\n"
    found = [Webhook(added["secret"]).verify(body, headers) for headers, body in hooks.got]
    assert [each["type"] for each in found] == ["alert.test", "alert.balance"]
    assert found[1]["data"]["available"] == "100.00"
    assert found[1]["data"]["account"] == "acme"
    book = b"".join(path.read_bytes() for path in (shop / ".avocado").glob("ledger.sqlite*"))
    assert added["secret"].removeprefix("whsec_").encode() not in book
    assert avocado(shop, "alerts", "remove", "acme", "1").code == 0
    assert "less than" not in avocado(shop, "alerts", "list").out


def test_a_spend_alert_sees_what_requests_cost(shop: Path, avocado: Avocado) -> None:
    workspace, sheet = Workspace.open(shop), PriceSheet(10**15, 0)
    with writing(workspace) as do:
        do(o.PublishPrice(terms=sheet.terms()))

    def ask(id_: str) -> None:
        with writing(workspace) as do:
            do(
                o.Hold(
                    id=id_,
                    tenant="acme",
                    offer="a",
                    release="r",
                    price_version=sheet.version,
                    prompt_tokens=5,
                    max_tokens=1,
                )
            )
            do(o.Settle(hold=id_, usage=Usage(5, 0)))

    avocado(shop, "alerts", "add", "acme", "--spend", "10", "--email", "a@example.com")
    ask("one")
    assert avocado(shop, "billing", "run").out == "Nothing was due\n"
    ask("two")
    ran: Any = avocado(shop, "billing", "run", "--json").json
    assert [each["what"] for each in ran] == ["written", "not sent"]


def test_a_private_webhook_is_refused_when_it_is_sent(
    shop: Path, avocado: Avocado, hooks: Hooks
) -> None:
    url = f"https://127.0.0.1:{hooks.server_address[1]}/"
    avocado(shop, "alerts", "add", "acme", "--webhook", url, "--balance", "500")
    assert "not public" in avocado(shop, "alerts", "test", "acme", "1").err
    ran: Any = avocado(shop, "billing", "run", "--json").json
    assert ran[1]["what"] == "not sent"
    assert "not public" in ran[1]["detail"]
    assert "not public" in avocado(shop, "alerts", "list").out
    assert hooks.got == []


def test_mail_that_cannot_go_says_what_to_configure(shop: Path, avocado: Avocado) -> None:
    added = avocado(shop, "alerts", "add", "acme", "--balance", "500", "--email", "a@example.com")
    assert "write [mail] into avocado.toml" in added.out
    assert "write [mail]" in avocado(shop, "alerts", "test", "acme", "1").err
    with (shop / "avocado.toml").open("a") as file:
        file.write('\n[mail]\nhost = "127.0.0.1"\nsender = "us@example.com"\n')
        file.write('username = "us"\npassword_variable = "MAIL_PASSWORD"\n')
    assert "MAIL_PASSWORD, which is not set" in avocado(shop, "billing", "run").err


# -- the clerk -------------------------------------------------------------------------------------


def test_two_clerks_in_one_workspace_are_one(shop: Path, avocado: Avocado) -> None:
    """Each opens the book when it needs it; what one did, the other finds done."""
    avocado(shop, "subscriptions", "start", "acme", "pro", "--trial")
    clerks = [Clerk(Workspace.open(shop)) for _ in range(2)]
    assert [clerk.round() for clerk in clerks] == [(), ()]


def test_a_process_with_its_own_way_to_write_and_its_own_clock(
    shop: Path, avocado: Avocado
) -> None:
    """As the console has them."""
    avocado(shop, "subscriptions", "start", "acme", "pro")
    workspace, opened = Workspace.open(shop), []

    @contextmanager
    def book() -> Iterator[Any]:
        with writing(workspace) as do:
            opened.append(do)
            yield do

    later = time.time_ns() + 32 * 86_400 * 10**9
    done = Clerk(workspace).round(book, lambda: later)
    assert [(each.what, each.tenant) for each in done] == [("renewed", "acme")]
    assert len(opened) == 1
    shown: Any = avocado(shop, "subscriptions", "show", "acme", "--json").json
    assert shown["charged"] == "30.00"


def test_the_gateway_follows_what_somebody_changed_by_hand(shop: Path, avocado: Avocado) -> None:
    avocado(shop, "subscriptions", "start", "acme", "pro")
    avocado(shop, "customer", "plan", "acme", "gold")
    ran: Any = avocado(shop, "billing", "run", "--json").json
    assert ran == [{"what": "entitled", "customer": "acme", "detail": "pro"}]
    avocado(shop, "subscriptions", "cancel", "acme", "--now")
    avocado(shop, "customer", "plan", "acme", "gold")  # without a subscription it stays
    assert avocado(shop, "billing", "run").out == "Nothing was due\n"
    assert policy(avocado, shop)["plan"] == "gold"


@pytest.mark.slow
def test_a_plan_opens_an_offer_beside_a_running_server(tmp_path: Path, avocado: Avocado) -> None:
    """The whole way: an offer for a plan alone, a subscription through the server's socket, tokens
    that cost no money, and the end."""
    folder = tmp_path / "shop"
    _, key = make_shop(folder)
    (folder / "pro.toml").write_text('offers = ["avocado-1"]\n' + PRO)
    assert avocado(folder, "offer", "set", "avocado-1", "--for", "plan:gold").code == 0
    published = avocado(folder, "plans", "publish", "pro.toml")
    assert "avocado offer set avocado-1 --for plan:gold --for plan:pro" in published.out
    avocado(folder, "offer", "set", "avocado-1", "--for", "plan:gold", "--for", "plan:pro")
    avocado(folder, "credit", "acme", "99")
    with serving(folder) as server:
        client = server.client(key)

        def ask() -> Any:
            return client.chat.completions.create(
                model="avocado-1",
                messages=[{"role": "user", "content": "Hello"}],
                max_tokens=8,
            )

        with pytest.raises(openai.NotFoundError):
            ask()
        assert avocado(folder, "subscriptions", "start", "acme", "pro").code == 0
        time.sleep(1.1)  # a key's record is believed for a second
        usage = ask().usage
        left: Any = avocado(folder, "subscriptions", "show", "acme", "--json").json
        assert left["included"][0]["left"] == 100_000 - usage.total_tokens
        (customer,) = listed(avocado, folder)
        assert customer["available"] == "70.00"
        assert avocado(folder, "billing", "run").out == "Nothing was due\n"
        avocado(folder, "subscriptions", "cancel", "acme", "--now")
        time.sleep(1.1)
        with pytest.raises(openai.NotFoundError):
            ask()
    assert avocado(folder, "verify", "--deep").code == 0
