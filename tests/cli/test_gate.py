"""``avocado gate`` and the gate of ``avocado release``, on scorecards of known results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from avocado.evaluate.scorecard import Measured, Scorecard, model_sha256, write_results
from avocado.evaluate.scored import Asked, Role, Scored
from avocado.workspace import Artifact, Workspace
from tests.cli.conftest import Avocado
from tests.evaluate.rows import result

RELEASE = ("--name", "m", "--paid", "--price-input", "0.20", "--price-output", "0.80")


@pytest.fixture
def place(trained: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A workspace of one's own with the checkpoint that all tests share."""
    folder = tmp_path / "shop"
    shutil.copytree(trained[0], folder)
    return folder, trained[1]


def suite(name: str, cells: tuple[int, int, int, int], role: Role = "target") -> Scored:
    """``cells``: items that both have right, only the base, only the checkpoint, neither."""

    def rows() -> Iterator[Asked]:
        sides = ((1, 1), (1, 0), (0, 1), (0, 0))
        kinds = [pair for pair, count in zip(sides, cells, strict=True) for _ in range(count)]
        for k, (left, right) in enumerate(kinds):
            base, other = (result(f"{name}-{k}", "en", score) for score in (left, right))
            yield Asked("q", "a", base, other)

    return Scored(name, role, "right answers", "a" * 64, tuple(rows()))


def keep(place: tuple[Path, str], *suites: Scored, weights: str | None = None) -> Artifact:
    """A scorecard as ``avocado evaluate`` keeps it; ``weights``: in place of the checkpoint's."""
    store = Workspace.open(place[0]).store
    checkpoint = store.load(place[1])
    base = store.load(checkpoint.manifest.parents["base"])
    parents = {"checkpoint": checkpoint.id, "base": base.id}
    measured = Measured(
        model_sha256(base.manifest.files), weights or model_sha256(checkpoint.manifest.files)
    )
    card = Scorecard.of(suites, parents=parents, measured=measured, sampling={"temperature": 0})
    timing = {"checkpoint": {"answers": 9, "p50": 0.5, "p95": 2.0, "tokens_per_second": 40.0}}
    with store.stage() as staging:
        write_results(staging.folder, suites)
        return staging.keep("scorecard", card.facts(), parents, {"timing": timing})


def rule(place: tuple[Path, str], text: str) -> None:
    with (place[0] / "avocado.toml").open("a") as handle:
        handle.write(f"\n[gate]\n{text}\n")


def test_without_a_scorecard_it_says_what_to_run(place: tuple[Path, str], avocado: Avocado) -> None:
    ran = avocado(place[0], "gate", place[1])
    assert ran.code == 1
    assert "avocado evaluate" in ran.err


def test_an_approval_shows_its_evidence_and_releases_nothing(
    place: tuple[Path, str], avocado: Avocado
) -> None:
    keep(place, suite("dates", (10, 0, 80, 10)))
    ran = avocado(place[0], "gate", place[1])
    assert ran.code == 0
    assert "+80.0" in ran.out
    assert "approved for sale" in ran.out
    assert Workspace.open(place[0]).store.ids("release") == []
    (report,) = (place[0] / ".avocado" / "reports").glob("*/report.html")
    assert "The gate: approved." in report.read_text("utf-8")


def test_undecided_has_its_own_word_and_counts_items(
    place: tuple[Path, str], avocado: Avocado
) -> None:
    keep(place, suite("dates", (45, 5, 9, 41)))
    for words in (("gate", place[1]), ("release", place[1], *RELEASE)):
        ran = avocado(place[0], *words)
        assert ran.code == 1
        assert ran.err.splitlines()[-2].startswith("undecided: no proven gain on dates")
        assert "more items of dates: write them and evaluate again" in ran.err
    told = json.loads(avocado(place[0], "gate", place[1], "--json").out)
    assert told["decision"] == "undecided"
    assert told["more_items"]["dates"] > 100
    assert told["findings"][0]["state"] == "undecided"
    assert Workspace.open(place[0]).store.ids("release") == []


def test_the_rules_of_the_workspace_are_asked(place: tuple[Path, str], avocado: Avocado) -> None:
    keep(place, suite("dates", (10, 0, 80, 10)), suite("safety", (150, 40, 0, 10), "guard"))
    rule(
        place,
        'must_gain = { suite = "dates", margin = 0.5 }\n'
        'guards = [{ suite = "safety", max_regression = 0.02 }]\n'
        "latency = { p95 = 1.5 }",
    )
    ran = avocado(place[0], "gate", place[1])
    assert ran.code == 1
    assert "refused: worse in safety: base 95.0%, refined 75.0%" in ran.err
    assert "refused: answers take 2 s (p95); allowed is 1.5 s" in ran.err
    both = avocado(place[0], "release", place[1], *RELEASE, "--min-gain", "1")
    assert "the rules stand in avocado.toml" in both.err


def with_gate(place: tuple[Path, str], gate: dict[str, object]) -> tuple[Path, str]:
    """The checkpoint as a recipe with that ``[gate]`` would have made it."""
    store = Workspace.open(place[0]).store
    made = store.load(place[1])
    facts = {**made.manifest.facts, "recipe": {**made.manifest.facts["recipe"], "gate": gate}}
    manifest = replace(made.manifest, facts=facts)
    with store.stage() as staging:
        copied = staging.folder / "files"
        shutil.copytree(made.files, copied)
        return place[0], store.place(manifest, {}, files=copied).id


def test_the_rules_of_the_recipe_are_asked(place: tuple[Path, str], avocado: Avocado) -> None:
    bound = with_gate(place, {"must_gain": {"suite": "dates", "margin": 0.9}})
    keep(bound, suite("dates", (10, 0, 80, 10)))
    ran = avocado(bound[0], "gate", bound[1])
    assert ran.code == 1
    assert "dates" in ran.err
    both = avocado(bound[0], "release", bound[1], *RELEASE, "--min-gain", "1")
    assert "the rules stand in the recipe" in both.err
    rule(bound, 'must_gain = { suite = "dates", margin = 0.1 }')
    assert "which of them holds?" in avocado(bound[0], "gate", bound[1]).err


def test_a_recipe_with_a_slip_in_its_gate_is_refused_before_it_is_trained(
    place: tuple[Path, str], avocado: Avocado
) -> None:
    text = 'name = "n"\nbase = "seedling"\ndata = ["d.jsonl"]\n'
    text += "[training]\nlearning_rate = 1e-3\nbatch = 4\nepochs = 1\nmax_length = 64\n"
    text += '[gate]\nmust_gian = { suite = "dates" }\n'
    (place[0] / "slip.toml").write_text(text)
    ran = avocado(place[0], "plan", "slip.toml")
    assert ran.code == 1
    assert "must_gian" in ran.err


def test_a_slip_in_the_rules_is_named(place: tuple[Path, str], avocado: Avocado) -> None:
    rule(place, 'must_gian = { suite = "dates" }')
    ran = avocado(place[0], "gate", place[1])
    assert ran.code == 1
    assert "must_gian" in ran.err


def test_an_allowed_loss_asked_by_hand_has_to_be_proven(
    place: tuple[Path, str], avocado: Avocado
) -> None:
    """Nothing was lost as seen; that no more than a point is lost needs more than 100 items."""
    keep(place, suite("dates", (10, 0, 80, 10)), suite("safety", (90, 2, 2, 6), "guard"))
    ran = avocado(place[0], "release", place[1], *RELEASE, "--max-regression", "1")
    assert ran.code == 1
    assert "undecided: not proven to be kept in safety" in ran.err


def test_a_release_names_the_weights_that_were_measured(
    place: tuple[Path, str], avocado: Avocado
) -> None:
    keep(place, suite("dates", (10, 0, 80, 10)), weights="d" * 64)
    ran = avocado(place[0], "release", place[1], *RELEASE)
    assert ran.code == 1
    assert "the scorecard measured other weights (dddddddddddd)" in ran.err
    assert Workspace.open(place[0]).store.ids("release") == []
    keep(place, suite("dates", (10, 0, 79, 11)))
    assert avocado(place[0], "release", place[1], *RELEASE).code == 0
    store = Workspace.open(place[0]).store
    facts = store.load(store.ids("release")[0]).manifest.facts
    assert facts["weights_sha256"] == model_sha256(store.load(place[1]).manifest.files)
    assert facts["gate"]["findings"][0]["state"] == "met"


def test_answers_that_were_changed_prove_nothing(place: tuple[Path, str], avocado: Avocado) -> None:
    card = keep(place, suite("dates", (10, 40, 0, 50)))
    path = card.files / "results.jsonl"
    path.write_text(path.read_text("utf-8").replace('"score":0', '"score":1'), "utf-8")
    ran = avocado(place[0], "gate", place[1])
    assert ran.code == 1
    assert "results.jsonl is missing or was changed" in ran.err
