"""The seedling's tokenizer: nothing is lost, digits stand alone, Qwen's marks are one token."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado import seedling

TEXTS = [
    "Rechnung vom 5. März 2024 über 1.234,50\u00a0€, fällig für Jürgen Groß",
    "Invoice of March 5, 2024 for US$1,234.50 (“due”)",
    "¿Cuánto? El niño pagó 1234,50\u00a0€ el 5 de marzo de 2024",
    "L’été à Noël : 1\u202f234,50\u00a0€ dû le 5 août 2024, cœur, naïve",
    "2024年3月5日的发票，金额¥1,234.50元。",
    "\n\n  tabs\tand   spaces \r\n and 🥑 e\u0301 \x00",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(seedling.PATH)


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_unchanged(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(ids(tokenizer, text)) == text


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_comes_back_unchanged(text: str) -> None:
    from transformers import AutoTokenizer

    global _loaded
    _loaded = _loaded or AutoTokenizer.from_pretrained(seedling.PATH)
    assert _loaded.decode(ids(_loaded, text)) == text


_loaded: Any = None


def test_a_digit_is_never_part_of_a_longer_token(tokenizer: Any) -> None:
    longer = [
        token for token in tokenizer.get_vocab() if re.search(r"\d", token) and len(token) > 1
    ]
    assert longer == []
    assert len(ids(tokenizer, "20240305")) == 8


@pytest.mark.parametrize(
    "character",
    [*"年月日元€£¥ßäöüéèñ¿，。：“”", "\u00a0", "\u202f"],
    ids=lambda c: f"U+{ord(c):04X}",
)
def test_the_characters_of_dates_and_money_are_one_token(tokenizer: Any, character: str) -> None:
    assert len(ids(tokenizer, character)) == 1


@pytest.mark.parametrize(
    "mark",
    [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
    ],
)
def test_qwens_marks_are_one_token_each(tokenizer: Any, mark: str) -> None:
    assert ids(tokenizer, f"a{mark}b")[1:-1] == [tokenizer.convert_tokens_to_ids(mark)]


def test_what_a_model_says_keeps_its_marks_but_loses_the_control_tokens(tokenizer: Any) -> None:
    said = ids(tokenizer, "<think>\nhm\n</think>\n\n<tool_call>\n{}\n</tool_call><|im_end|>")
    kept = tokenizer.decode(said, skip_special_tokens=True)
    assert kept == "<think>\nhm\n</think>\n\n<tool_call>\n{}\n</tool_call>"
