"""The demo's task: one right answer each, the same for a seed, no exam question in the lessons."""

from __future__ import annotations

import json
import random
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from babel.dates import format_date, parse_date
from babel.numbers import parse_decimal

from avocado.demo import task
from avocado.demo.phrases import PHRASES, WHAT, WHO

EXPECTED_PER_LANGUAGE = 800


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, task.Counts]:
    folder = tmp_path_factory.mktemp("task")
    train, evaluation = folder / "train.jsonl", folder / "evaluation.jsonl"
    return train, evaluation, task.write_task(train, evaluation)


@pytest.fixture(scope="module")
def items() -> list[task.Item]:
    return task.items(20_000, seed=3)


def test_there_is_enough_of_it_and_every_language_has_its_share(
    written: tuple[Path, Path, task.Counts],
) -> None:
    train, evaluation, counts = written
    assert counts.train == dict.fromkeys(task.LANGUAGES, EXPECTED_PER_LANGUAGE)
    assert all(count >= 60 for count in counts.evaluate.values())
    assert len(rows_of(train)) == sum(counts.train.values()) >= 4_000
    assert len(rows_of(evaluation)) == sum(counts.evaluate.values())


def test_the_rows_have_the_shapes_that_data_and_evaluation_read(
    written: tuple[Path, Path, task.Counts],
) -> None:
    for row in rows_of(written[0]):
        assert set(row) == {"messages", "language", "license", "source"}
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert row["license"] == "Apache-2.0"
    asked = rows_of(written[1])
    for row in asked:
        assert set(row) == {"id", "language", "messages", "answer"}
        assert [message["role"] for message in row["messages"]] == ["user"]
    assert len({row["id"] for row in asked}) == len(asked)


def test_nothing_of_the_evaluation_is_taught(written: tuple[Path, Path, task.Counts]) -> None:
    taught, asked = rows_of(written[0]), rows_of(written[1])
    texts = {row["messages"][0]["content"] for row in taught}
    answers = {row["messages"][1]["content"] for row in taught}
    assert not texts & {row["messages"][0]["content"] for row in asked}
    assert not answers & {row["answer"] for row in asked}
    assert len(texts) == len(answers) == len(taught)


def test_a_seed_settles_every_byte(written: tuple[Path, Path, task.Counts], tmp_path: Path) -> None:
    again = (tmp_path / "train.jsonl", tmp_path / "evaluation.jsonl")
    task.write_task(*again)
    assert again[0].read_bytes() == written[0].read_bytes()
    assert again[1].read_bytes() == written[1].read_bytes()
    task.write_task(*again, seed=1)
    assert again[0].read_bytes() != written[0].read_bytes()


def test_every_answer_is_json_of_one_form(items: list[task.Item]) -> None:
    for item in items:
        answer = json.loads(item.answer)
        assert list(answer) == ["date", "amount", "currency"]
        assert task.FIRST_DAY <= date.fromisoformat(answer["date"]) <= task.LAST_DAY
        decimals = r"\d+" if answer["currency"] == "JPY" else r"\d+\.\d\d"
        assert re.fullmatch(decimals, answer["amount"])
        assert not re.match(r"0\d", answer["amount"])
        assert answer["currency"] in task.CURRENCIES
        assert item.answer == json.dumps(answer, separators=(",", ":"))


def test_the_same_question_never_has_two_answers(items: list[task.Item]) -> None:
    drawn: dict[tuple[str, str], str] = {}
    rng = random.Random(11)
    for number in range(30_000):
        item = task.draw(task.LANGUAGES[number % 5], rng)
        assert drawn.setdefault((item.language, item.text), item.answer) == item.answer
    languages: dict[str, set[str]] = {}
    for item in items:
        languages.setdefault(item.text, set()).add(item.language)
    assert all(len(found) == 1 for found in languages.values())


def test_no_phrase_could_belong_to_two_languages_or_brings_its_own_digits() -> None:
    """What is left of a phrase without its slots is the language's own, so it settles the order."""
    bare = [
        (code, re.sub(r"\{\w+\}|\W", "", phrase))
        for code, phrases in PHRASES.items()
        for phrase in phrases
    ]
    texts = [text for _, text in bare]
    assert all(texts)
    assert len(set(texts)) == len(texts)
    assert not any(re.search(r"\d", text) for text in texts)
    assert all("{date}" in p and "{amount}" in p for phrases in PHRASES.values() for p in phrases)
    for words in (WHO, WHAT):
        assert set(words) == set(task.LANGUAGES)
        assert not any(re.search(r"\d", word) for each in words.values() for word in each)


@pytest.mark.parametrize("language", task.LANGUAGES)
def test_each_way_to_write_a_currency_means_one_currency(language: str) -> None:
    seen: dict[str, str] = {}
    for currency in task.CURRENCIES:
        for way in set(task.ways(language, currency)):
            for value in (Decimal(1), Decimal(2), Decimal("12.34")):
                text = task.write_amount(value, currency, language, way)
                sign = re.sub(r"[\d.,\s\u00a0\u202f]", "", text)
                assert sign not in ("", *task.SHARED_SIGNS)
                assert seen.setdefault(sign, currency) == currency


def test_babel_reads_the_written_amounts_and_short_dates_back(items: list[task.Item]) -> None:
    """A second reader, CLDR's own parser, gets the answer from the question."""
    for item in items[:4_000]:
        written = [
            task.write_amount(
                parse_decimal(item.amount, locale="en"), item.currency, item.language, w
            )
            for w in task.ways(item.language, item.currency)
        ]
        assert any(text in item.text for text in written)
        day = date.fromisoformat(item.date)
        dates = {style: format_date(day, style, locale=item.language) for style in task.STYLES}
        assert any(text in item.text for text in dates.values())
        assert parse_date(dates["short"], locale=item.language, format="short") == day
