"""``avocado trace``: from an invoice line to every licence text, each named by its hash."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from avocado.billing.months import after, month_at, start
from avocado.cli.components import log_of
from avocado.cli.customers import add_customer, create_key
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import open_ledger
from avocado.lineage import digest_file
from avocado.terms.attestation import Statement
from avocado.terms.money import Money
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace
from tests.cli.conftest import Avocado
from tests.cli.serving import serving


def test_an_invoice_line_leads_to_every_licence_text(
    trained: tuple[Path, str], tmp_path: Path, avocado: Avocado
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(trained[0], folder)
    workspace = Workspace.open(folder)
    words = ("licence", "attest", "threshold", "--monthly-users", "10", "--by", "Ada Lovelace")
    assert avocado(folder, *words, "--reason", "we counted").code == 0
    assert avocado(folder, "release", trained[1], "--name", "free-1", "--open").code == 0
    add_customer(workspace, "acme", "Acme", Money.parse("1"), Money(0))
    key = create_key(workspace, "acme", "test")
    with serving(folder) as served:
        served.client(key).chat.completions.create(
            model="free-1", messages=[{"role": "user", "content": "hi"}], max_tokens=3
        )
    invoice: Any = avocado(folder, "invoice", "acme", "--json").json
    line = str(invoice["lines"][0]["id"])
    ran = avocado(folder, "trace", line, "--json")
    assert ran.code == 0, ran.err
    links: Any = ran.json
    roles = [each["role"] for each in links]
    for role in ("invoice line", "request", "offer", "release", "checkpoint", "corpus", "base"):
        assert role in roles
    by_role = {each["role"]: each for each in links}
    papers = {each["name"]: each for each in by_role["release"]["papers"]}
    assert papers.keys() >= {"LICENSE", "NOTICE", "README.md", "bom.cdx.json", "signature"}
    for name in ("LICENSE", "NOTICE", "README.md", "bom.cdx.json"):
        assert digest_file(Path(papers[name]["place"])) == papers[name]["sha256"]
    base = {each["name"]: each for each in by_role["base"]["papers"]}
    assert digest_file(Path(base["LICENSE"]["place"])) == base["LICENSE"]["sha256"]
    told = "\n".join(by_role["release"]["facts"])
    assert "licence of base seedling: Apache-2.0 <https://www.apache.org" in told
    assert "licence of data avocado demo generator: Apache-2.0" in told
    assert "to observe: state that the files were changed (§4b), for seedling and" in told
    said = avocado(folder, "trace", line).out
    assert said.index("invoice line") < said.index("release-") < said.index("base-")
    assert f"NOTICE sha256 {papers['NOTICE']['sha256']}" in said


SELLER = """
[seller]
name = "Shop"
address = ["Road 1"]
postcode = "20457"
city = "Hamburg"
country = "DE"
tax_number = "1"
invoice_series = "AV"
"""


def test_an_invoice_leads_to_the_releases_and_plans_that_its_lines_rest_on(
    trained: tuple[Path, str], tmp_path: Path, avocado: Avocado
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(trained[0], folder)
    with (folder / "avocado.toml").open("a") as handle:
        handle.write(SELLER)
    assert avocado(folder, "release", trained[1], "--name", "free-1", "--open").code == 0
    workspace = Workspace.open(folder)
    (release,) = workspace.store.ids("release")
    sheet = PriceSheet(10**9, 10**9)
    last = after(month_at(time.time_ns()), -1)
    with open_ledger(workspace.ledger, ManualClock(start(last) + 10**12)) as ledger:
        for operation in (
            o.OpenCustomer(tenant="acme", name="Acme", credit_limit=10**12),
            o.PublishPrice(terms=sheet.terms()),
            o.File(id="plan/pro/1", kind="plan", content={"fee": 1}, actor="ada"),
            o.Bill(id="f", tenant="acme", amount=10**9, currency="USD", item="plan:pro@1"),
        ):
            ledger.do_now(operation)
        for name in ("r1", "r2"):
            ledger.do_now(
                o.Hold(
                    id=name,
                    tenant="acme",
                    offer="free-1",
                    release=release,
                    price_version=sheet.version,
                    prompt_tokens=10**6,
                    max_tokens=0,
                )
            )
            ledger.do_now(o.Settle(hold=name, usage=Usage(10**6, 0)))
    assert avocado(folder, "invoices", "close", "--month", last).code == 0
    ran = avocado(folder, "trace", "AV-000001", "--json")
    assert ran.code == 0, ran.err
    links: Any = ran.json
    roles = [each["role"] for each in links]
    assert roles[0] == "invoice"
    assert {"usage line", "fee line", "release", "checkpoint", "base", "plan"} <= set(roles)
    assert roles.count("release") == 1
    assert "filed by ada" in avocado(folder, "trace", "AV-000001").out
    assert "give an invoice" in avocado(folder, "trace", "AV-000002").err


def test_attestations_that_a_release_rests_on_are_told_and_missed(
    trained: tuple[Path, str], tmp_path: Path, avocado: Avocado
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(trained[0], folder)
    workspace = Workspace.open(folder)
    made = log_of(workspace).append(
        Statement(
            "licence",
            by="Ada Lovelace",
            date="2026-11-01",
            reason="read its page",
            subject="notes",
            licence="MIT",
        )
    )
    with workspace.store.stage() as staging:
        (staging.folder / "LICENSE").write_text("text")
        facts = {"name": "m", "gate": {"purpose": "sale"}, "attestations": [made.cited()]}
        release = staging.keep("release", facts)
    said = avocado(folder, "trace", release.id)
    assert "attestation 1 of Ada Lovelace, 2026-11-01" in said.out
    assert made.seal in said.out
    assert "notes is MIT: read its page" in said.out
    log_of(workspace).path.unlink()
    assert "it is not in the log any more" in avocado(folder, "trace", release.id).out
    value = json.loads(avocado(folder, "trace", release.id, "--json").out)
    assert value[0]["papers"][-1]["sha256"] == made.seal
