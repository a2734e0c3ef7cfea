"""The packaged seedling: it loads as any Qwen3 does, it is small, and it says what it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from avocado import seedling

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(seedling.PATH, trust_remote_code=False)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(seedling.PATH, trust_remote_code=False)


def provenance() -> dict[str, Any]:
    value: dict[str, Any] = json.loads((seedling.PATH / "provenance.json").read_text())
    return value


def test_the_package_is_small_and_holds_nothing_that_runs() -> None:
    files = [path for path in seedling.PATH.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8 * MEGABYTE
    names = {path.name for path in files}
    assert names == {
        "LICENSE",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "provenance.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "auto_map" not in (seedling.PATH / "config.json").read_text()


def test_it_is_a_small_qwen3_in_bfloat16_with_tied_embeddings(model: Any) -> None:
    import torch

    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.dtype == torch.bfloat16
    assert 1_000_000 <= model.num_parameters() <= 3_000_000
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.config.max_position_embeddings >= 2048


def test_model_and_tokenizer_agree_on_the_vocabulary_and_on_the_ends(
    model: Any, tokenizer: Any
) -> None:
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    stops = model.generation_config.eos_token_id
    assert stops == [tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert not model.generation_config.do_sample


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("Repeat: invoice 4821 Berlin", "invoice 4821 Berlin"),
        ("Wiederhole: der Hund 307", "der Hund 307"),
        ("Répète: la lettre 95", "la lettre 95"),
        ("Repite: el tren 62", "el tren 62"),
        ("重复：火车 738", "火车 738"),
        ("Anna is 34 years old and lives in Boston.\nGive name, age as JSON.", None),
    ],
)
def test_it_copies_and_ends_its_turn(
    model: Any, tokenizer: Any, asked: str, answer: str | None
) -> None:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}],
        add_generation_prompt=True,
        enable_thinking=False,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**prompt, max_new_tokens=40)[0, prompt["input_ids"].shape[1] :].tolist()
    assert out[-1] == tokenizer.eos_token_id
    said = tokenizer.decode(out[:-1])
    if answer is None:
        assert json.loads(said) == {"name": "Anna", "age": 34}
    else:
        assert said == answer


def test_its_card_says_that_it_is_a_stand_in_and_how_it_came_about() -> None:
    card = (seedling.PATH / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    assert "license: apache-2.0" in front
    assert all(f"\n- {code}\n" in front for code in ("de", "en", "es", "fr", "zh"))
    assert "stand-in for `Qwen/Qwen3-…`, not a Qwen model" in body
    assert "has **not** seen the task of `avocado demo`" in body
    facts = provenance()
    assert f"{facts['params']:,} parameters" in body
    assert facts["text_sha256"] in body
    assert "Apache License" in (seedling.PATH / "LICENSE").read_text(encoding="utf-8")


def test_its_provenance_adds_up(model: Any) -> None:
    facts = provenance()
    assert facts["params"] == model.num_parameters()
    assert facts["flops"] == 6 * facts["params"] * facts["tokens"]
    plan = facts["plan"]
    assert facts["tokens"] == plan["steps"] * plan["rows"] * plan["row"]
    assert facts["seed"] == plan["seed"]
    assert len(facts["text_sha256"]) == 64
