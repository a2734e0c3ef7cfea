"""Content addresses: the same content has the same id, another content another, and walks end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.lineage import Manifest, canonical, digest_folder, short, walk

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_the_order_of_keys_does_not_change_the_hash(facts: dict[str, object]) -> None:
    backwards = dict(reversed(list(facts.items())))
    assert canonical(facts) == canonical(backwards)
    assert Manifest("corpus", facts).id == Manifest("corpus", backwards).id


def test_nan_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"loss": float("nan")})


def test_an_id_pins_facts_parents_and_files() -> None:
    base = Manifest("base", {"name": "a"})
    same = Manifest("checkpoint", {"seed": 1}, {"base": base.id}, {"w": "00"})
    assert Manifest.from_json(same.to_json()).id == same.id
    others = [
        Manifest("checkpoint", {"seed": 2}, {"base": base.id}, {"w": "00"}),
        Manifest("checkpoint", {"seed": 1}, {"base": "base-other"}, {"w": "00"}),
        Manifest("checkpoint", {"seed": 1}, {"base": base.id}, {"w": "01"}),
    ]
    assert len({same.id, *(other.id for other in others)}) == 4
    assert short(same.id).startswith("checkpoint-")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        Manifest("potato", {})


def test_a_folder_hash_sees_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = digest_folder(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "payload").write_text("x")
    assert set(digest_folder(tmp_path)) - set(before) == {".git/payload"}


def test_a_walk_meets_each_ancestor_once() -> None:
    base = Manifest("base", {"name": "b"})
    corpus = Manifest("corpus", {"rows": 1})
    checkpoint = Manifest("checkpoint", {}, {"base": base.id, "corpus": corpus.id})
    card = Manifest("scorecard", {}, {"checkpoint": checkpoint.id, "base": base.id})
    stored = {each.id: each for each in (base, corpus, checkpoint, card)}
    steps = list(walk(card.id, stored.__getitem__))
    assert [step.manifest.kind for step in steps] == ["scorecard", "checkpoint", "base", "corpus"]
    assert [step.depth for step in steps] == [0, 1, 2, 2]
