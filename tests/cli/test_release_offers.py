"""``avocado offer set``, ``price`` and ``show``, beside a real server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from avocado.cli.customers import add_customer, create_key
from avocado.cli.lineups import line_up, place_offer
from avocado.terms.money import Money
from avocado.workspace import Workspace
from tests.cli.conftest import Avocado
from tests.cli.serving import make_shop, serving


def models(url: str, key: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {each["id"]: each for each in json.load(answer)["data"]}


def ask(url: str, key: str) -> tuple[int, Any]:
    body = {"model": "avocado-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["message"]


def test_terms_of_an_offer_change_while_it_is_served(tmp_path: Path, avocado: Avocado) -> None:
    folder = tmp_path / "shop"
    _, acme = make_shop(folder)
    workspace = Workspace.open(folder)
    add_customer(workspace, "other", "Other", Money.parse("1"), Money(0))
    other = create_key(workspace, "other", "test")
    store = workspace.store
    first = line_up(workspace, "avocado-1")
    assert first is not None
    second = place_offer(workspace, "avocado-2", first.offer.release, first.offer.price)
    store.point("offer", "avocado-2", second.id)
    with serving(folder) as served:
        assert ask(served.url, other)[0] == 200
        ran = avocado(folder, "offer", "set", "avocado-1", "--for", "plan:pro", "--for", "acme")
        assert ran.code == 0, ran.err
        assert "for acme, plan:pro" in ran.out
        assert "(1 running server followed)" in ran.out
        assert ask(served.url, other)[0] == 404
        assert "avocado-1" not in models(served.url, other)
        assert ask(served.url, acme)[0] == 200
        words = ("--deprecated", "2026-01-01", "--until", "2999-01-01T12:00")
        ran = avocado(folder, "offer", "set", "avocado-1", *words, "--successor", "avocado-2")
        assert ran.code == 0, ran.err
        headers = ask(served.url, acme)[1]
        assert headers["deprecation"] == "@1767225600"
        assert headers["sunset"] == "Tue, 01 Jan 2999 12:00:00 GMT"
        assert models(served.url, acme)["avocado-1"]["deprecation"]["successor"] == "avocado-2"
        price_words = ("--price-input", "300", "--price-output", "900", "--batch", "50")
        ran = avocado(folder, "offer", "price", "avocado-1", *price_words, "--json")
        assert ran.code == 0, ran.err
        price = models(served.url, acme)["avocado-1"]["price_per_million_tokens"]
        assert float(price["prompt"]) == 300
        price = models(served.url, acme)["avocado-1"]["batch_price_per_million_tokens"]
        assert float(price["prompt"]) == 150
        words = ("--deprecated", "none", "--until", "2026-02-01")
        assert avocado(folder, "offer", "set", "avocado-1", *words).code == 0
        code, said = ask(served.url, acme)
        assert code == 404
        assert "is not sold any more since 2026-02-01 00:00 UTC; use 'avocado-2' instead" in said
    last = line_up(Workspace.open(folder), "avocado-1")
    assert last is not None
    assert last.offer.release == first.offer.release
    assert last.offer.price.version != first.offer.price.version
    assert line_up(workspace, "avocado-2") is not None
    assert store.load(first.offer.id).manifest.facts == first.offer.manifest().facts  # no edit
    shown: Any = avocado(folder, "offer", "show", "avocado-1", "--json").json
    assert shown["batch_percent"] == 50
    assert shown["audience"] == ["acme", "plan:pro"]
    assert (shown["deprecated"], shown["ends"]) == (None, 1769904000)
    rows: Any = avocado(folder, "offer", "list", "--json").json
    assert [row["state"] for row in rows] == ["over", "sold"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--for", "nobody"), "there is no customer 'nobody'; a plan is written as plan:NAME"),
        (("--for", "all", "--for", "acme"), "--for all leaves nobody out"),
        (("--successor", "avocado-9"), "nothing is offered as 'avocado-9'"),
        (("--deprecated", "2027-01-01", "--until", "2026-01-01"), "in that order"),
        (("--until", "soon"), "'soon' is no date such as 2026-12-01"),
        ((), "say what to change"),
        (("--until", "none"), "is offered so already"),
    ],
)
def test_terms_that_make_no_sense_are_refused(
    tmp_path: Path, avocado: Avocado, words: tuple[str, ...], said: str
) -> None:
    folder = tmp_path / "shop"
    make_shop(folder)
    ran = avocado(folder, "offer", "set", "avocado-1", *words)
    assert ran.code != 0
    assert said in ran.err


def test_a_customer_is_put_on_a_plan_and_that_is_on_record(
    tmp_path: Path, avocado: Avocado
) -> None:
    folder = tmp_path / "shop"
    make_shop(folder)
    assert avocado(folder, "customer", "plan", "acme", "pro").code == 0
    assert avocado(folder, "customer", "plan", "acme", "none").code == 0
    assert avocado(folder, "customer", "plan", "nobody", "pro").code == 1
    assert avocado(folder, "customer", "plan", "acme", "a plan").code == 1
    rows: Any = avocado(folder, "customer", "log", "acme", "--json").json
    assert [row["changed"] for row in rows] == [
        {"plan": {"old": None, "new": "pro"}},
        {"plan": {"old": "pro", "new": None}},
    ]
