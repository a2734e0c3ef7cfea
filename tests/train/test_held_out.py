"""What is held out is measured, before and after, and changes nothing that is learnt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avocado.data import corpus
from avocado.data.chat import IGNORED, ChatTemplate
from avocado.data.checks import Rules
from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.train import run, sequences
from avocado.train.recipe import Recipe, parse

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, template: ChatTemplate) -> tuple[Path, Path]:
    """A corpus that holds a quarter out, and one of the very rows that it learns."""
    folder = tmp_path_factory.mktemp("corpora")
    source = folder / "rows.jsonl"
    turns = [
        [{"role": "user", "content": f"double {n}"}, {"role": "assistant", "content": f"{2 * n}"}]
        for n in range(40)
    ]
    source.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    kept = [folder / "split", folder / "learnt"]
    for each in kept:
        each.mkdir()
    corpus.freeze([source], template, Rules(128, near_duplicates="keep"), kept[0], holdout=0.25)
    learnt = (kept[0] / "examples.jsonl").read_bytes()
    assert 25 < learnt.count(b"\n") < 40
    (kept[1] / "examples.jsonl").write_bytes(learnt)
    return kept[0], kept[1]


def train(recipe: Recipe, base: Path, folder: Path, out: Path) -> run.Finished:
    return run.run(
        recipe,
        base=base,
        corpus=folder,
        identity={"base": "b", "corpus": "c"},
        folder=out / "run",
        out=out / "out",
    )


@pytest.mark.parametrize("packing", [True, False])
def test_the_loss_on_held_out_rows_is_measured(
    base: Path,
    corpora: tuple[Path, Path],
    template: ChatTemplate,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    packing: bool,
) -> None:
    recipe = make_recipe("", steps=20, packing=packing)
    found = train(recipe, base, corpora[0], tmp_path / "with").note["held_out_loss"]
    assert found["after"] < found["before"]
    assert found["before"] == pytest.approx(_plain(base, corpora[0], template), rel=1e-4)
    assert found["after"] == pytest.approx(
        _plain(tmp_path / "with" / "out", corpora[0], template), rel=2e-2
    )  # the stored weights are bfloat16

    without = train(recipe, base, corpora[1], tmp_path / "without")
    assert "held_out_loss" not in without.note
    same = [digest_folder(tmp_path / name / "out") for name in ("with", "without")]
    assert same[0] == same[1]


def _plain(model: Path, folder: Path, template: ChatTemplate) -> float:
    """The same, row by row, by transformers alone."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows = sequences.render(corpus.read(folder, held_out=True), template, 128)
    summed = count = 0.0
    for number in range(len(rows)):
        ids, labels = (torch.from_numpy(each.astype("int64")) for each in rows.row(number))
        with torch.no_grad():
            logits = loaded(input_ids=ids[None]).logits[0, :-1]
        wanted = labels[1:]
        summed += float(
            torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
        )
        count += int((wanted != IGNORED).sum())
    return summed / count


def test_a_method_that_does_not_measure_refuses_a_holdout() -> None:
    text = """
    name = "x"
    base = "seedling"
    data = ["a.jsonl"]
    method = "dpo"
    holdout = 0.1
    training = {learning_rate = 1e-3, batch = 2, steps = 1}
    """
    with pytest.raises(Refused, match="holdout is not measured"):
        parse(text)
