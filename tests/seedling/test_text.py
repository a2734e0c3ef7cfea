"""The seedling's pre-training text: the same for a seed, in five languages, and honest."""

from __future__ import annotations

import re

import pytest

from recipes.seedling import text
from recipes.seedling.language import CODES, language

DOCUMENTS = 20_000
TASK_KEYS = re.compile(r'"(date|amount|currency)"')


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return text.take(7, DOCUMENTS)


def test_the_same_seed_gives_the_same_text(documents: list[str]) -> None:
    again = text.take(7, 500)
    assert again == documents[:500]
    assert text.take(8, 50) != documents[:50]


def test_no_document_holds_the_keys_of_the_demo(documents: list[str]) -> None:
    assert [each for each in documents if TASK_KEYS.search(each)] == []


def test_no_document_writes_a_date_in_the_answers_form(documents: list[str]) -> None:
    iso = re.compile(r"(?<![\d-])(19|20)\d\d-[01]\d-[0-3]\d(?![\d-])")
    assert [each for each in documents if iso.search(each)] == []


def test_chats_end_their_turns_and_hold_no_stray_control_token(documents: list[str]) -> None:
    chats = [each for each in documents if each.startswith("<|im_start|>")]
    assert len(chats) > DOCUMENTS // 5
    for chat in chats:
        assert chat.endswith("<|im_end|>\n")
        assert chat.count("<|im_start|>") == chat.count("<|im_end|>")
    others = [each for each in documents if not each.startswith("<|im_start|>")]
    assert not any("<|" in each for each in others)


def test_no_slot_is_left_open(documents: list[str]) -> None:
    assert [each for each in documents if re.search(r"\{[A-Za-z]+2?\}", each)] == []


@pytest.mark.parametrize("code", CODES)
def test_every_word_list_is_filled_and_names_come_from_cldr(code: str) -> None:
    spoken = language(code)
    lists = {k: v for k, v in spoken.words.items() if isinstance(v, list)}
    assert all(len(values) >= 4 for values in lists.values())
    assert len(spoken.months) == 12
    assert len(spoken.weekdays) == 7
    assert len(spoken.countries) > 200
    assert sorted(spoken.words) == sorted(language("en").words)
    assert sorted(spoken.chat) == sorted(language("en").chat)
