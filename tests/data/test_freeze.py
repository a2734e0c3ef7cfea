"""``avocado data freeze``: what a recipe says of its sources is what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from avocado.cli.main import cli
from avocado.data import corpus

RECIPE = """
name = "try"
base = "seedling"
license = "MIT"
holdout = 0.2
data = [
  {{ path = "{task}", group = "customer", weight = 2, license = "CC0-1.0" }},
  {{ path = "general", replay = true, weight = 0.5, split = "test", shape = "completion" }},
]
[training]
learning_rate = 1e-3
batch = 4
steps = 2
"""


def run(folder: Path, *words: str) -> Result:
    monkey = pytest.MonkeyPatch()
    monkey.chdir(folder)
    try:
        return CliRunner().invoke(cli, words)
    finally:
        monkey.undo()


def shop(folder: Path, *, task: str = "task.csv") -> Path:
    folder.mkdir(parents=True)
    assert run(folder, "init", ".").exit_code == 0
    rows = [f"How is case {number}?,It is number {number},c{number % 10}" for number in range(50)]
    (folder / "task.csv").write_text("\n".join(["prompt,completion,customer", *rows]))
    (folder / "general").mkdir()
    for name in ("test", "train"):
        (folder / "general" / f"{name}.jsonl").write_text(
            "".join(
                json.dumps({"prompt": f"{name} {number}", "completion": "so", "label": None}) + "\n"
                for number in range(40)
            )
        )
    (folder / "recipe.toml").write_text(RECIPE.format(task=task))
    return folder


def frozen(folder: Path) -> tuple[str, dict[str, Any], Path]:
    ran = run(folder, "data", "freeze", "recipe.toml", "--json")
    assert ran.exit_code == 0, ran.output
    facts = json.loads(ran.stdout)
    (files,) = (folder / ".avocado" / "artifacts" / "corpus").glob("*/files")
    return facts["corpus"], facts, files


def test_a_recipe_s_sources_become_a_corpus(tmp_path: Path) -> None:
    _, facts, files = frozen(shop(tmp_path / "shop"))
    learnt = list(corpus.read(files))
    held = list(corpus.read(files, held_out=True))
    task = [each for each in learnt if each.file == "task.csv"]
    general = [each for each in learnt if each.file == "test.jsonl"]
    assert (len(task), len(held)) == (80, 10)
    assert {each.licence for each in (*task, *held)} == {"CC0-1.0"}
    assert {each.licence for each in general} == {"MIT"}
    assert not {each.group for each in held} & {each.group for each in task}
    assert len({each.sha256 for each in general}) == len(general) == 40 - facts["thinned"]
    assert facts["left_out"] == ["train.jsonl: of the split 'train'"]
    assert [(each["name"], each["shape"]) for each in facts["files"]] == [
        ("task.csv", "completion"),
        ("test.jsonl", "completion"),
    ]


def test_the_same_recipe_and_data_are_the_same_corpus_elsewhere(tmp_path: Path) -> None:
    here, _, _ = frozen(shop(tmp_path / "here"))
    there, facts, _ = frozen(shop(tmp_path / "far" / "away"))
    assert here == there
    assert str(tmp_path) not in json.dumps(facts)


def test_what_was_read_and_left_out_is_said(tmp_path: Path) -> None:
    ran = run(shop(tmp_path / "shop"), "data", "freeze", "recipe.toml")
    lines = ran.stdout.splitlines()
    assert lines[:3] == [
        "task.csv: 50 rows, prompt and completion",
        "test.jsonl: 40 rows, prompt and completion",
        "not read: train.jsonl: of the split 'train'",
    ]
    assert any(line.endswith(" to learn, 10 held out") for line in lines)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("nowhere.csv", "there is no data file or folder"),
        ("empty.jsonl", "is empty: it needs at least one row"),
        ("words.txt", "does not end in a format that is read"),
        ("pairs.jsonl", "cannot be read as conversations: row 1 is of the shape 'preference"),
        ("hf://owner", "is no data set: write hf://owner/name"),
        ("bad.jsonl", "bad.jsonl, row 2: byte 13 is not valid UTF-8"),
    ],
)
def test_fault_41_bad_data_makes_no_corpus(tmp_path: Path, task: str, said: str) -> None:
    folder = shop(tmp_path / "shop", task=task)
    (folder / "empty.jsonl").touch()
    (folder / "words.txt").write_text("words")
    (folder / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}')
    row = b'{"prompt": "a", "completion": "b", "customer": 1}\n'
    (folder / "bad.jsonl").write_bytes(row + row.replace(b'"a"', b'"\xff"'))
    ran = run(folder, "data", "freeze", "recipe.toml")
    assert ran.exit_code != 0
    assert said in f"{ran.output}{ran.exception}"
    assert not list((folder / ".avocado").glob("artifacts/corpus/*"))
