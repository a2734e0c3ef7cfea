"""Runs, scorecards, releases and offers on the operator's pages, and what the servers say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from avocado.console.operator import gauges, proving
from avocado.console.operator.gauges import parse, quantile, sum_up
from avocado.evaluate.scorecard import write_results
from avocado.gateway.metrics import Metrics, Moment
from avocado.train.run_folder import RunFolder
from avocado.workspace import Workspace
from tests.console.conftest import House, MakeHouse
from tests.console.test_operator_acts import actions, do, send
from tests.evaluate.rows import card, scored


def keep_run(workspace: Workspace, name: str, rate: float, steps: int = 30) -> RunFolder:
    folder = RunFolder(workspace.state / "runs" / name)
    recipe = {"name": name, "base": "seedling", "training": {"learning_rate": rate}}
    folder.begin({"recipe": recipe}, restart=True)
    for step in range(1, steps + 1):
        folder.log({"step": step, "loss": 2 / step, "tokens": 100 * step, "seconds": 0.5})
    return folder


def keep_card(workspace: Workspace, seed: int) -> str:
    suite = scored({"en": (0.3, 0.9), "de": (0.4, 0.8)}, seed=seed, name="dates")
    made = card(suite)
    with workspace.store.stage() as staging:
        write_results(staging.folder, [suite])
        return staging.keep("scorecard", made.facts(), made.parents).id


def keep_release(workspace: Workspace, scorecard: str, name: str = "avocado-2") -> str:
    finding = {
        "kind": "gain", "suite": "dates", "language": "all", "threshold": 0.0, "proof": True,
        "confidence": 0.95, "items": 80, "clusters": 80, "base": 0.3, "refined": 0.9, "low": 0.4,
        "high": 0.8, "detectable": 0.1, "state": "met", "more": None, "p": None,
    }  # fmt: skip
    facts = {
        "name": name,
        "template_sha256": "t" * 64,
        "weights_sha256": "w" * 64,
        "gate": {
            "approved": True,
            "purpose": "sale",
            "rules": {},
            "findings": [finding],
            "gain": 0.6,
            "licences": [{"role": "base", "name": "<b>", "licence": "MIT", "text_sha256": None}],
            "notices": ["base: ship the licence text"],
        },
        "attestations": [],
    }
    with workspace.store.stage() as staging:
        (staging.folder / "LICENSE").write_text("MIT")
        return staging.keep("release", facts, {"scorecard": scorecard}).id


@pytest.fixture(scope="module")
def models(house: House) -> House:
    workspace = house.console.workspace
    keep_run(workspace, "first", 0.001)
    keep_run(workspace, "second", 0.002)
    return house


def test_runs_are_listed_shown_and_compared(models: House) -> None:
    browser = models.signed_in("engineer", None)
    assert "first" in browser.get("/operator/runs").text
    page = browser.get("/operator/runs/first").text
    assert "<polyline" in page
    assert "learning_rate" in page
    both = browser.get("/operator/compare-runs?run=first&run=second").text
    assert both.count("<polyline") == 2
    assert "training.learning_rate" in both
    assert browser.get("/operator/compare-runs?run=first&run=none").status_code == 404


def test_a_running_curve_is_sent_as_it_grows(make_house: MakeHouse) -> None:
    """The stream's first fragment; it is made anew with each look at the folder."""
    from avocado.console.operator.training import run_live
    from avocado.console.page import Form, Visit

    house = make_house()
    folder = keep_run(house.console.workspace, "live", 0.001, steps=3)
    with folder.hold():
        browser = house.signed_in("engineer", None)
        page = browser.get("/operator/runs/live").text
        assert 'data-live="/operator/runs/live/live"' in page
        assert "Running" in page
        folder.log({"step": 4, "loss": 0.1, "tokens": 400, "seconds": 0.5})
        from avocado.console.formats import Formats
        from avocado.console.words import Speaker

        route = next(r for r in house.console.routes if r.path == "/operator/runs/{name}/live")
        visit = Visit(
            house.console, house.person("engineer", None), None, route, {"name": "live"},
            Form(), Form(), Speaker("en"), Formats("en", time.time_ns()), time.time_ns(), "", "",
        )  # fmt: skip
        assert run_live(visit)["run"].steps == 4  # type: ignore[index]


def test_a_scorecard_its_report_and_its_neighbour(models: House) -> None:
    workspace = models.console.workspace
    one, two = keep_card(workspace, 1), keep_card(workspace, 2)
    browser = models.signed_in("engineer", None)
    assert one[:20] in browser.get("/operator/scorecards").text
    page = browser.get(f"/operator/scorecards/{one}").text
    assert "dates · de" in page
    both = browser.get(f"/operator/scorecards/compare?card={one}&card={two}").text
    assert both.count("dates · en") == 1
    report = browser.get(f"/operator/scorecards/{one}/report")
    policy = report.headers["content-security-policy"]
    assert policy.startswith("sandbox;"), "a report is nobody's origin and runs nothing"
    assert "script-src" not in policy
    assert "<script" not in report.text
    assert browser.get("/operator/scorecards/scorecard-nothing/report").status_code == 404


def test_a_release_says_why_it_was_let_out(models: House) -> None:
    workspace = models.console.workspace
    release = keep_release(workspace, keep_card(workspace, 3))
    browser = models.signed_in("engineer", None)
    page = browser.get(f"/operator/releases/{release}").text
    for part in ("MIT", "ship the licence text", "+40.0", "&lt;b&gt;"):
        assert part in page, part
    assert "<b>MIT</b> &lt;b&gt;" in page
    assert "avocado-2" in browser.get("/operator/releases").text
    assert browser.get(f"/operator/artifacts/{release}").status_code == 303


def test_price_canary_and_the_way_back(make_house: MakeHouse) -> None:
    house = make_house()
    workspace = house.console.workspace
    release = keep_release(workspace, keep_card(workspace, 4))
    browser, here = house.signed_in("engineer", None), "/operator/offers/avocado-1"
    first = workspace.store.pointed("offer")["avocado-1"]
    price = {"prompt": "0.30", "completion": "1,20", "cached": ""}
    try:
        answer = do(browser, f"{here}/release", {"release": release, "percent": "10"}, "try it")
    except AssertionError as error:
        raise AssertionError(f"canary: {error}") from error
    assert answer.status_code == 303
    assert workspace.store.pointed("canary")["avocado-1"].split()[1] == "10"
    assert send(browser, f"{here}/price", price).status_code == 422, "not while a canary runs"
    assert "10" in browser.get(here).text
    do(browser, f"{here}/rollback", {}, "worse answers")
    assert "avocado-1" not in workspace.store.pointed("canary")
    do(browser, f"{here}/release", {"release": release, "percent": "0"}, "for all")
    assert workspace.store.pointed("offer")["avocado-1"] != first
    do(browser, f"{here}/rollback", {}, "not yet")
    assert workspace.store.pointed("offer")["avocado-1"] == first
    said = [each.content["what"] for each in actions(house)]
    assert said == ["canary", "roll-back", "release", "roll-back"]
    assert {each.actor for each in actions(house)} == {"engineer@operator.example"}
    finance = house.signed_in("finance", None)
    assert finance.get(here).status_code == 200
    assert "set_price" not in finance.get(here).text
    assert send(finance, f"{here}/price", price).status_code == 404


# -- what the servers say -------------------------------------------------------------------------


def metrics_text() -> str:
    """What the gateway itself writes."""
    metrics = Metrics()
    for seconds, status, outcome in ((0.02, "200", "ok"), (0.2, "200", "ok"), (0.9, "503", "away")):
        metrics.requests["avocado-1", "release-1", status, outcome] += 10
        for _ in range(10):
            metrics.first.add(("avocado-1", "release-1"), seconds)
    metrics.requests["", "", "401", "bad_key"] += 3
    moment = Moment({}, running=4, capacity=64, draining=False, ready=True)
    return metrics.text(moment).decode()


def test_the_gateways_own_metrics_are_read() -> None:
    found = sum_up([metrics_text(), metrics_text()])
    assert found is not None
    assert (found.servers, found.requests, found.errors, found.refused) == (2, 66, 20, 6)
    assert (found.running, found.capacity, found.ready) == (8, 128, True)
    assert found.first_p50 is not None
    assert 0.1 < found.first_p50 <= 0.25
    assert found.error_share == pytest.approx(20 / 66)
    (model,) = found.models
    assert (model.model, model.requests, model.errors) == ("avocado-1", 60, 20)
    assert sum_up([]) is None
    assert sum_up(["no metrics at all\x00"]) is not None


def test_quantiles_lie_within_their_bucket() -> None:
    buckets = {0.1: 10.0, 1.0: 20.0, float("inf"): 20.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.1)
    assert quantile(buckets, 0.75) == pytest.approx(0.55)
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0.0, float("inf"): 0.0}, 0.5) is None
    assert quantile({1.0: 0.0, float("inf"): 5.0}, 0.5) == 1.0
    assert parse('avocado_x{a="1\\"2",b="c"} 4')[0].labels["b"] == "c"


@contextmanager
def server(text: str) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield http.server_port
        finally:
            http.shutdown()
            thread.join()


def test_the_overview_shows_a_running_server(make_house: MakeHouse) -> None:
    with server(metrics_text()) as port:
        house = make_house(f"[serve]\nport = {port}\n")
        assert gauges.ask(house.console) is not None
        text = house.signed_in("owner", None).get("/operator/overview").text
        assert "10 of 33 since the start" in text
    assert gauges.ask(house.console) is None
    assert "avocado serve" in house.signed_in("owner", None).get("/operator/overview").text


# -- the proof ------------------------------------------------------------------------------------


def wait_for_proof(house: House) -> proving.State:
    for _ in range(400):
        state = proving.desk_of(house.console.workspace).state
        if state is not None and not state.running:
            return state
        time.sleep(0.05)
    raise AssertionError("the proof did not end")


def test_the_proof_names_the_entry_that_was_changed(make_house: MakeHouse) -> None:
    import apsw

    house = make_house()
    browser = house.signed_in("finance", None)
    assert send(browser, "/operator/proof", {"deep": "yes"}).status_code == 303
    state = wait_for_proof(house)
    assert len(state.checks) == 10
    assert all(each.ok for each in state.checks), state.checks
    assert state.entries == state.head > 0
    book = apsw.Connection(str(house.console.workspace.ledger))
    (seq,) = next(iter(book.execute("SELECT seq FROM journal WHERE kind = 'HoldSettled'")))
    (body,) = next(iter(book.execute("SELECT body FROM journal WHERE seq = ?", (seq,))))
    changed = json.loads(bytes(body)) | {"charge": 1}
    book.execute("UPDATE journal SET body = ? WHERE seq = ?", (json.dumps(changed).encode(), seq))
    book.close()
    assert proving.begin(house.console.workspace, "ada", deep=False) is not None
    state = wait_for_proof(house)
    assert not state.fine
    broken = {each.number: each for each in state.checks if not each.ok}
    assert broken[8].seq == seq
    text = browser.get("/operator/proof").text
    assert f"First at journal entry {seq}" in text


def test_a_second_proof_waits_for_the_first(make_house: MakeHouse) -> None:
    house = make_house()
    desk = proving.desk_of(house.console.workspace)
    desk.state = proving.State(who="ada")
    assert proving.begin(house.console.workspace, "bo", deep=False) is None
    answer = send(house.signed_in("owner", None), "/operator/proof", {})
    assert answer.status_code == 303
    desk.state = None
