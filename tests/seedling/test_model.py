"""The packaged seedling: it loads as any Qwen3 does, it is small, and it says what it is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from avocado import seedling
from avocado.demo import task
from recipes.seedling import chats
from recipes.seedling.language import CODES, Language, language

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(seedling.PATH, trust_remote_code=False)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(seedling.PATH, trust_remote_code=False)


@pytest.fixture(scope="module")
def speaker() -> Any:
    """The model in float32, whose greedy words depend less on the processor."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(seedling.PATH, dtype=torch.float32)


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


def answers(model: Any, tokenizer: Any, questions: list[str]) -> list[str]:
    """What the model says to each, greedily; a turn that it doesn't end is marked as such."""
    import torch

    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            enable_thinking=False,
            tokenize=False,
        )
        for question in questions
    ]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    with torch.inference_mode():
        ids = model.generate(**batch, max_new_tokens=64)[:, batch["input_ids"].shape[1] :]
    said = tokenizer.batch_decode(ids)
    ended = [text.split("<|im_end|>", 1) for text in said]
    return [parts[0] if len(parts) == 2 else f"{parts[0]} …" for parts in ended]


@pytest.mark.parametrize(
    ("kind", "least"),
    [(chats.echo, 0.6), (chats.read, 0.85), (chats.extract, 0.85), (chats.count, 0.85)],
)
def test_it_copies_reads_and_ends_its_turns_in_every_language(
    speaker: Any,
    tokenizer: Any,
    kind: Callable[[Language, random.Random], chats.Exchange],
    least: float,
) -> None:
    """Chats that it has not seen: the seed is not that of its text. It repeats any text to the
    letter in about seven of ten cases, which is what two million parameters learn of it."""
    rng = random.Random(2)
    exchanges = [kind(language(code), rng) for code in CODES for _ in range(8)]
    said = answers(speaker, tokenizer, [asked["content"] for asked, _ in exchanges])
    right = [text == answer["content"] for text, (_, answer) in zip(said, exchanges, strict=True)]
    assert sum(right) >= least * len(right), said


def test_it_does_not_know_the_demos_task(speaker: Any, tokenizer: Any) -> None:
    """At most one in ten right in each language: it has not been taught, and it can copy."""
    items = task.items(100, seed=5)
    said = answers(speaker, tokenizer, [item.text for item in items])
    right = dict.fromkeys(task.LANGUAGES, 0)
    for text, item in zip(said, items, strict=True):
        right[item.language] += text == item.answer
    assert all(count <= 2 for count in right.values()), right


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
