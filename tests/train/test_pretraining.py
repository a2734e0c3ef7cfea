"""Continued pretraining: every token of raw text is learnt once, the end of text too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.data.chat import IGNORED, ChatTemplate
from avocado.data.document import Document
from avocado.data.record import FILE
from avocado.errors import Refused
from avocado.lineage import canonical
from avocado.train import sequences, sft
from avocado.train.recipe import Recipe
from avocado.train.run import run

MakeRecipe = Callable[..., Recipe]
WORDS = "the avocado is a fruit and its tree grows in warm places where rain falls often "


def documents(count: int, repeats: int) -> list[Document]:
    return [
        Document(f"{number}: {WORDS * (1 + number % repeats)}", file="raw.txt", row=number + 1)
        for number in range(count)
    ]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    lines = [canonical(each.to_json()) + b"\n" for each in documents(24, 6)]
    (folder / FILE[Document]).write_bytes(b"".join(lines))
    return folder


@given(
    texts=st.lists(st.text("abc dé中", max_size=40), min_size=1, max_size=8),
    size=st.integers(8, 30),
)
def test_every_token_is_trained_once(template: ChatTemplate, texts: list[str], size: int) -> None:
    given_ = [Document(text) for text in texts]
    end = sequences.end_of_text(template)
    whole = [(*template.encode(text), end) for text in texts]
    rows, cut = sequences.render_documents(given_, template, size)
    assert cut == sum(len(ids) > size for ids in whole)
    assert max(rows.lengths) <= size
    trained = [
        int(label) for place in range(len(rows)) for label in rows.row(place)[1] if label != IGNORED
    ]
    assert trained == [token for ids in whole for token in ids[1:]]
    for place in range(len(rows)):
        ids, labels = rows.row(place)
        assert labels[0] == IGNORED, "nothing comes before it that could say it"
        assert np.array_equal(ids[1:], labels[1:])


def test_a_text_that_holds_a_control_token_is_refused(template: ChatTemplate) -> None:
    text = f"before {template.tokenizer.eos_token} after"
    with pytest.raises(Refused, match=r"raw\.txt, row 7: its text contains the control token"):
        sequences.render_documents([Document(text, file="raw.txt", row=7)], template, 64)


def test_a_run_learns_raw_text(
    base: Path, raw: Path, make_recipe: MakeRecipe, template: ChatTemplate, tmp_path: Path
) -> None:
    losses: list[float] = []
    recipe = make_recipe('method = "pretraining"', steps=12, max_length=48)
    prepared = sft.prepare(recipe, base, raw, template)
    assert prepared.order.packed
    assert prepared.notes == (
        "20 documents of more than 48 tokens are cut into windows; no token is lost",
    )
    done = run(
        recipe,
        base=base,
        corpus=raw,
        identity={},
        folder=tmp_path / "run",
        out=tmp_path / "out",
        save_every=0,
        progress=lambda step: losses.append(step.loss),
    )
    assert losses[-1] < 0.7 * losses[0]
    assert done.checkpoint.method == "pretraining"
    assert done.note["notes"] == list(prepared.notes)
    assert done.checkpoint.trained_tokens == done.checkpoint.tokens - 12 * 8, "all but first tokens"


def test_conversations_are_no_raw_text(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe, template: ChatTemplate
) -> None:
    with pytest.raises(Refused, match="conversations"):
        sft.prepare(make_recipe('method = "pretraining"'), base, corpus_folder, template)
