"""The recipe makes what is shipped: the same template, tokenizer and text; a model that loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avocado import seedling
from recipes.seedling import make, pretrain, text, tokenizer


def provenance() -> dict[str, Any]:
    value: dict[str, Any] = json.loads((seedling.PATH / "provenance.json").read_text())
    return value


def test_the_shipped_template_is_the_recipes() -> None:
    shipped = (seedling.PATH / "chat_template.jinja").read_text(encoding="utf-8")
    assert shipped == text.template()


def test_the_shipped_plan_is_the_recipes() -> None:
    plan = pretrain.Plan()
    assert pretrain.Plan(**provenance()["plan"]) == plan
    assert provenance()["tokens"] == plan.tokens


def test_a_short_run_makes_a_folder_like_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(make, "TOKENIZER_DOCUMENTS", 3_000)
    monkeypatch.setattr(make, "BATCH", 50)
    plan = pretrain.Plan(steps=2, rows=2, row=64, warmup=1)
    facts = make.make(tmp_path, plan)
    assert facts["tokens"] == 2 * 2 * 64
    digest = text.Digest()
    for document in text.take(plan.seed, facts["documents"]):
        digest.add(document)
    assert digest.hex() == facts["text_sha256"]
    assert {path.name for path in tmp_path.iterdir()} == {p.name for p in seedling.PATH.iterdir()}
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == model.config.vocab_size
    assert facts["params"] == model.num_parameters()


def test_rows_start_with_a_document_and_lose_only_what_does_not_fit() -> None:
    documents = iter([[1, 2, 3], [4, 5, 6], [7], [8, 9], [10, 11, 12]])
    plan = pretrain.Plan(steps=1, rows=2, row=5)
    packed = pretrain.pack(documents, pad=0, plan=plan)
    assert packed.tolist() == [[1, 2, 3, 0, 4], [7, 0, 8, 9, 0]]


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    plan = pretrain.Plan(steps=1_000, warmup=10, rate=1e-3)
    rates = [plan.rate_at(step) for step in range(plan.steps)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[-1] < 1e-2 * max(rates)
    assert rates[0] == pytest.approx(1e-4)


@pytest.mark.slow
def test_the_shipped_tokenizer_and_text_are_what_the_recipe_writes() -> None:
    facts = provenance()
    made = tokenizer.train(text.take(facts["seed"], make.TOKENIZER_DOCUMENTS), text.template())
    shipped = json.loads((seedling.PATH / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(made.backend_tokenizer.to_str())["model"] == shipped["model"]
    digest = text.Digest()
    for document in text.take(facts["seed"], facts["documents"]):
        digest.add(document)
    assert digest.hex() == facts["text_sha256"]
