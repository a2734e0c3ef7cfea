"""The demo's task: a date and an amount, as five languages write them, to one JSON form.

``Rechnung vom 5. März 2024 über 1.234,50 €.`` → ``{"date":"2024-03-05","amount":"1234.50",
"currency":"EUR"}``. Dates and amounts are written by Babel from Unicode's CLDR. The task has one
right answer everywhere: the words settle the language, the language settles the order of a short
date, two-digit years lie in :data:`FIRST_DAY` … :data:`LAST_DAY`, and a bare ``$`` or ``¥``, which
several currencies share, is never written. Knows nothing about models.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

from avocado.demo.phrases import PHRASES, WHAT, WHO

LANGUAGES: Final = ("de", "en", "es", "fr", "zh")
CURRENCIES: Final = ("EUR", "USD", "GBP", "CHF", "JPY", "CNY")
STYLES: Final = ("short", "medium", "long", "full")
"""CLDR's four ways to write a date: from 05.03.24 to Dienstag, 5. März 2024."""

FIRST_DAY: Final = date(2000, 1, 1)
LAST_DAY: Final = date(2039, 12, 31)
DAYS: Final = (LAST_DAY - FIRST_DAY).days + 1

SHARED_SIGNS: Final = ("$", "¥", "￥")
"""Signs that stand for more than one currency when they stand alone."""

CODE_PATTERN: Final = {
    "de": "#,##0.00\u00a0¤¤",
    "en": "¤¤\u00a0#,##0.00",
    "es": "#,##0.00\u00a0¤¤",
    "fr": "#,##0.00\u00a0¤¤",
    "zh": "¤¤\u00a0#,##0.00",
}
"""Where each language puts an ISO code, with the no-break space that CLDR asks for."""

SEED: Final = 20_240_305
LICENCE: Final = "Apache-2.0"
SOURCE: Final = "avocado demo generator"


@dataclass(frozen=True)
class Item:
    """One question and its answer. ``amount`` has as many decimals as the currency has."""

    language: str
    text: str
    date: str
    amount: str
    currency: str

    @property
    def triple(self) -> tuple[str, str, str]:
        return self.date, self.amount, self.currency

    @property
    def answer(self) -> str:
        """The one right answer: JSON without spaces, always these keys in this order."""
        value = {"date": self.date, "amount": self.amount, "currency": self.currency}
        return json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True)
class Counts:
    """What was written: language → rows."""

    train: dict[str, int]
    evaluate: dict[str, int]


@cache
def ways(language: str, currency: str) -> tuple[str, ...]:
    """How ``language`` may write an amount of ``currency``: name, code and, if it is safe, sign."""
    from babel.numbers import get_currency_symbol

    sign = get_currency_symbol(currency, locale=language)
    return ("name", "code") if sign in SHARED_SIGNS else ("name", "code", "sign", "sign")


def write_amount(value: Decimal, currency: str, language: str, way: str) -> str:
    """``value`` as ``language`` writes it, in one of :func:`ways`."""
    from babel.numbers import format_currency

    if way == "code":
        return str(format_currency(value, currency, CODE_PATTERN[language], locale=language))
    kind = "name" if way == "name" else "standard"
    return str(format_currency(value, currency, locale=language, format_type=kind))


def draw_amount(rng: random.Random, currency: str) -> Decimal:
    """One to five digits before the point, equally often; decimals as the currency has them."""
    whole = rng.randrange(1, 10 ** rng.randint(1, 5))
    return (
        Decimal(whole) if currency == "JPY" else Decimal(whole) + Decimal(rng.randrange(100)) / 100
    )


def draw(language: str, rng: random.Random) -> Item:
    """A new item in ``language``."""
    from babel.dates import format_date

    day = FIRST_DAY + timedelta(days=rng.randrange(DAYS))
    currency = rng.choice(CURRENCIES)
    value = draw_amount(rng, currency)
    text = rng.choice(PHRASES[language]).format(
        date=format_date(day, rng.choice(STYLES), locale=language),
        amount=write_amount(value, currency, language, rng.choice(ways(language, currency))),
        who=rng.choice(WHO[language]),
        what=rng.choice(WHAT[language]),
    )
    amount = str(value) if currency == "JPY" else f"{value:.2f}"
    return Item(language, text, day.isoformat(), amount, currency)


def items(count: int, seed: int) -> list[Item]:
    """``count`` items, the languages in turn; no text and no triple comes twice."""
    rng = random.Random(seed)
    texts: set[str] = set()
    triples: set[tuple[str, str, str]] = set()
    made: list[Item] = []
    while len(made) < count:
        item = draw(LANGUAGES[len(made) % len(LANGUAGES)], rng)
        if item.text not in texts and item.triple not in triples:
            texts.add(item.text)
            triples.add(item.triple)
            made.append(item)
    return made


def training_row(item: Item) -> dict[str, Any]:
    """A row in OpenAI's ``messages`` shape, with where it comes from."""
    return {
        "messages": [
            {"role": "user", "content": item.text},
            {"role": "assistant", "content": item.answer},
        ],
        "language": item.language,
        "license": LICENCE,
        "source": SOURCE,
    }


def evaluation_row(item: Item, number: int) -> dict[str, Any]:
    """A row of an evaluation suite: the question, and the answer apart from it."""
    return {
        "id": f"demo-{item.language}-{number:04}",
        "language": item.language,
        "messages": [{"role": "user", "content": item.text}],
        "answer": item.answer,
    }


def write_task(
    train_path: Path, eval_path: Path, *, train: int = 4_000, evaluate: int = 300, seed: int = SEED
) -> Counts:
    """Writes ``train`` training rows and ``evaluate`` evaluation rows, all languages equally often.

    No text and no triple of date, amount and currency is in both files. The same seed and the same
    Babel write the same bytes.
    """
    made = items(train + evaluate, seed)
    asked, taught = made[:evaluate], made[evaluate:]
    _write(eval_path, (evaluation_row(item, number) for number, item in enumerate(asked, 1)))
    _write(train_path, (training_row(item) for item in taught))
    return Counts(_by_language(taught), _by_language(asked))


def _by_language(made: list[Item]) -> dict[str, int]:
    return {code: sum(item.language == code for item in made) for code in LANGUAGES}


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
