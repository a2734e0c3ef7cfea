"""``avocado licence``: explained from artifacts, attested by name, cited by the release."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avocado.cli.components import components, known_components, of_checkpoint
from avocado.terms.licence import Component
from avocado.workspace import Artifact, Workspace
from tests.cli.conftest import Avocado

BY = ("--by", "Ada Lovelace", "--reason", "read the page of the data set")


@pytest.fixture
def frozen(shop: Path, avocado: Avocado) -> Path:
    """A workspace whose data states no licence, frozen."""
    rows = [json.loads(line) for line in (shop / "train.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("license", None)
    (shop / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = (shop / "recipe.toml").read_text().replace('license = "Apache-2.0"\n', "")
    (shop / "recipe.toml").write_text(recipe)
    assert avocado(shop, "data", "freeze", "recipe.toml").code == 0
    return shop


def source(folder: Path) -> Component:
    found = [each for each in known_components(Workspace.open(folder)) if each.role == "data"]
    assert len(found) == 1
    return found[0]


def corpus_of(folder: Path) -> str:
    return Workspace.open(folder).store.ids("corpus")[-1]


def test_what_is_known_is_listed(shop: Path, avocado: Avocado) -> None:
    ran = avocado(shop, "licence", "list")
    assert ran.code == 0
    assert "LicenseRef-Qwen-Research: Qwen/Qwen2.5-3B" in ran.out
    value: Any = avocado(shop, "licence", "list", "--json").json
    assert {"Apache-2.0", "LicenseRef-Gemma"} <= {each["id"] for each in value["licences"]}
    assert value["attestations"] == []
    assert avocado(shop.parent, "licence", "list").code == 0  # no workspace is needed to read


def test_a_base_is_explained_with_its_clause_source_and_what_must_be_shown(
    shop: Path, avocado: Avocado
) -> None:
    ran = avocado(shop, "licence", "explain", "seedling")
    assert ran.code == 0
    for said in ("base seedling", "chat template seedling", "apache.org/licenses", "read 2026-11"):
        assert said in ran.out
    assert "to show: state that the files were changed (§4b)" in ran.out
    value: Any = avocado(shop, "licence", "explain", "seedling", "--json").json
    assert value["sale"] == {"allowed": True, "reasons": []}
    assert [each["role"] for each in value["components"]] == ["base", "tokenizer", "chat template"]
    assert value["components"][0]["text_sha256"]
    assert avocado(shop, "licence", "explain", "seedling", "--purpose", "sale").code == 0


def test_fault_39_a_known_repository_is_explained_without_fetching_it(
    shop: Path, avocado: Avocado
) -> None:
    for name in ("Qwen/Qwen2.5-3B", "Qwen/Qwen3.8-Flash-Next"):
        ran = avocado(shop, "licence", "explain", name, "--purpose", "sale", "--json")
        assert ran.code == 1
        value: Any = ran.json
        assert len(value["sale"]["reasons"]) == 1
        assert f"huggingface.co/{name}/blob/main/LICENSE" in value["sale"]["reasons"][0]
    assert avocado(shop, "licence", "explain", "Qwen/Qwen3-8B", "--purpose", "sale").code == 0


def test_unknown_data_is_refused_until_it_is_attested(frozen: Path, avocado: Avocado) -> None:
    corpus = corpus_of(frozen)
    before = avocado(frozen, "licence", "explain", corpus, "--purpose", "sale")
    assert before.code == 1
    assert "a person must read it" in before.out
    name = source(frozen).name
    made = avocado(frozen, "licence", "attest", name, "--licence", "mit", *BY)
    assert made.code == 0, made.err
    assert f"{name}@" in made.out
    assert "is MIT; by Ada Lovelace" in made.out
    after: Any = avocado(frozen, "licence", "explain", corpus, "--json").json
    assert after["sale"]["allowed"]
    assert after["components"][0]["licence"] == "MIT"
    assert after["attestations"][0]["by"] == "Ada Lovelace"
    assert "attested 1:" in avocado(frozen, "licence", "list").out


def test_other_data_under_the_same_name_needs_its_own_word(frozen: Path, avocado: Avocado) -> None:
    first = source(frozen)
    attest = ("licence", "attest", first.name, "--licence", "MIT", *BY)
    assert avocado(frozen, *attest).code == 0
    with (frozen / "train.jsonl").open("a") as handle:
        turns = [{"role": "user", "content": "new?"}, {"role": "assistant", "content": "Yes."}]
        handle.write(json.dumps({"messages": turns, "language": "en"}) + "\n")
    assert avocado(frozen, "data", "freeze", "recipe.toml").code == 0
    ids = Workspace.open(frozen).store.ids("corpus")
    codes = [avocado(frozen, "licence", "explain", x, "--purpose", "sale").code for x in ids]
    assert sorted(codes) == [0, 1]
    several = avocado(frozen, *attest)
    assert several.code == 1
    assert "means 2 things here" in several.err
    others = [x for x in known_components(Workspace.open(frozen)) if x.role == "data"]
    new = next(each for each in others if each.scope != first.scope)
    mark = new.scope.removeprefix("sha256:")[:8]
    again = ("licence", "attest", f"{new.name}@{mark}", "--licence", "MIT", *BY)
    assert avocado(frozen, *again).code == 0


def test_a_changed_log_is_not_believed(frozen: Path, avocado: Avocado) -> None:
    attest = ("licence", "attest", source(frozen).name, "--licence", "CC-BY-NC-4.0", *BY)
    assert avocado(frozen, *attest).code == 0
    assert "1 attestations are as they were written" in avocado(frozen, "verify").out
    path = frozen / ".avocado" / "attestations.jsonl"
    path.write_text(path.read_text().replace("CC-BY-NC-4.0", "MIT"))
    for words in (("licence", "explain", "seedling"), ("licence", "list"), attest, ("verify",)):
        ran = avocado(frozen, *words)
        assert ran.code == 1
        assert "attestations.jsonl, line 1 was changed" in ran.err


def test_a_threshold_is_stated_for_a_quarter(shop: Path, avocado: Avocado) -> None:
    words = ("licence", "attest", "threshold", "--by", "Ada", "--date", "2026-01-01")
    ran = avocado(shop, *words, "--monthly-users", "1200", "--revenue", "90000", "--json")
    assert ran.code == 0, ran.err
    value: Any = ran.json
    assert value["values"] == {"monthly-users": 1200, "yearly-revenue": 90000}
    assert value["until"] == "2026-04-03"


REFUSED = [
    (("seedling", "--licence", "Apachee", *BY), "is no licence that we know"),
    (("seedling", "--licence", "LicenseRef-Mine", *BY), "say with --allow"),
    (("seedling", "--licence", "MIT", *BY), "is under Apache License 2.0"),
    (("seedling", "--licence", "CC-BY-NC-4.0", "--allow", "sale", *BY), "does not allow sale"),
    (("nothing", "--licence", "MIT", *BY), "no base, data source or teacher"),
    (("base-00", "--licence", "MIT", *BY), "no artifact"),
    (("seedling", "--licence", "MIT", "--by", " ", "--reason", "x"), "is under Apache"),
    (("threshold", "--revenue", "1", "--by", " "), "needs the name"),
    (("threshold", "--revenue", "1", "--by", "A", "--date", "soon"), "is no date"),
    (("threshold", "--revenue", "1", "--by", "A", "--date", "2999-01-01"), "lies ahead"),
    (("threshold", "--revenue", "1", "--by", "A", "--until", "2020-01-01"), "cannot hold until"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda each: " ".join(each)[:60])
def test_refused_in_one_sentence(
    shop: Path, avocado: Avocado, words: tuple[str, ...], said: str
) -> None:
    for more in ((), ("--json",)):
        ran = avocado(shop, "licence", "attest", *words, *more)
        assert ran.code == 1, ran.out
        assert said in ran.err
    assert not (shop / ".avocado" / "attestations.jsonl").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("attest", "seedling", "--licence", "MIT", "--reason", "x"),
        ("attest", "seedling", "--by", "A"),
        ("attest", "seedling", "--licence", "MIT", "--by", "A"),
        ("attest", "threshold", "--by", "A"),
        ("attest", "threshold", "--by", "A", "--revenue", "-1"),
        ("attest", "threshold", "--by", "A", "--revenue", "1", "--licence", "MIT"),
        ("attest", "seedling", "--by", "A", "--monthly-users", "1"),
        ("explain",),
        ("explain", "seedling", "--purpose", "fun"),
    ],
    ids=" ".join,
)
def test_wrong_usage(shop: Path, avocado: Avocado, words: tuple[str, ...]) -> None:
    assert avocado(shop, "licence", *words).code == 2


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no-such-thing", "there is no base"),
        ("owner/model", "there is no base"),
        ("checkpoint-00", "no artifact"),
        ("suite-00", "no artifact"),
        ("../elsewhere", "there is no base"),
        (".", "has no *.safetensors"),
    ],
)
def test_what_cannot_be_explained(shop: Path, avocado: Avocado, target: str, said: str) -> None:
    ran = avocado(shop, "licence", "explain", target)
    assert ran.code == 1
    assert said in ran.err


def test_teachers_of_a_corpus_and_a_closed_judge_are_components(
    frozen: Path, tmp_path: Path
) -> None:
    store = Workspace.open(frozen).store
    base, corpus = store.load(store.ids("base")[0]), store.load(corpus_of(frozen))
    shutil.copytree(corpus.files, tmp_path / "taught")
    with store.stage() as staging:
        for path in corpus.files.iterdir():
            shutil.copyfile(path, staging.folder / path.name)
        teachers = [
            {"model": "Qwen/Qwen3-235B-A22B", "revision": "abc", "license": "Apache-2.0"},
            {"model": "gpt-5", "revision": "unknown", "license": "MIT"},
        ]
        taught = staging.keep("corpus", {**corpus.manifest.facts, "teachers": teachers})
    with store.stage() as staging:
        recipe = {"distillation": {"judge": {"model": "claude-opus-5"}}}
        parents = {"base": base.id, "corpus": taught.id, "teacher": base.id}
        checkpoint = staging.keep("checkpoint", {"recipe": recipe}, parents)
    found = of_checkpoint(Workspace.open(frozen), checkpoint)
    assert [each.role for each in found] == [
        "base",
        "tokenizer",
        "chat template",
        "data",
        "teacher",
        "teacher",
        "judge",
        "teacher",
    ]
    assert found[4].scope == "abc"
    assert found[5] == Component("teacher", "gpt-5", "MIT")
    assert found[7].name == "seedling"
    assert len(components(base, [taught, taught])) == 6


def test_a_release_cites_what_it_rests_on(frozen: Path, avocado: Avocado) -> None:
    assert avocado(frozen, "train", "recipe.toml").code == 0
    checkpoint = Workspace.open(frozen).store.ids("checkpoint")[-1]
    words = ("release", checkpoint, "--name", "small-1", "--open")
    refused = avocado(frozen, *words)
    assert refused.code == 1
    assert "has the licence 'unknown', which is not known" in refused.err
    attest = ("licence", "attest", source(frozen).name, "--licence", "CC-BY-4.0", *BY)
    assert avocado(frozen, *attest).code == 0
    made = avocado(frozen, *words, "--json")
    assert made.code == 0, made.err
    value: Any = made.json
    [cited] = value["attestations"]
    assert (cited["seq"], cited["by"]) == (1, "Ada Lovelace")
    told = avocado(frozen, "licence", "explain", value["release"])
    assert "CC-BY-4.0" in told.out
    assert "credit the authors of the data" in told.out


def test_components_need_only_artifacts(frozen: Path) -> None:
    store = Workspace.open(frozen).store
    base: Artifact = store.load(store.ids("base")[0])
    found = components(base, [])
    assert {each.scope for each in found} == {found[0].scope}
    assert found[0].scope.startswith("sha256:")
