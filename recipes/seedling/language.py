"""Language: the words of one language, and Scene: what one little text is about.

Hand-written words come from ``words/*.toml``; names of months, weekdays, countries, languages and
units, and the way that dates, numbers and money are written, come from CLDR through Babel. It
knows no kind of text: ``prose``, ``drills`` and ``chats`` do.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_currency, format_decimal
from babel.units import format_unit

CODES: Final = ("de", "en", "es", "fr", "zh")
STYLES: Final = ("short", "medium", "long", "full")
CURRENCIES: Final = ("EUR", "USD", "GBP", "CHF", "JPY", "CNY", "SEK", "PLN", "INR", "BRL")
UNITS: Final = (
    "length-kilometer",
    "length-meter",
    "mass-kilogram",
    "duration-hour",
    "volume-liter",
)
FIRST_DAY: Final = date(1950, 1, 1)
DAYS: Final = 36_500


class Language:
    """One of :data:`CODES`: ``words`` from the TOML file, names and formats from CLDR."""

    def __init__(self, code: str) -> None:
        path = Path(__file__).parent / "words" / f"{code}.toml"
        self.code = code
        self.words: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        self.chat: dict[str, Any] = self.words["chat"]
        self.locale = Locale(code)
        self.months = [self.locale.months["stand-alone"]["wide"][n] for n in range(1, 13)]
        self.weekdays = [self.locale.days["stand-alone"]["wide"][n] for n in range(7)]
        codes = sorted(c for c in self.locale.territories if len(c) == 2 and c.isalpha())
        self.countries = [self.locale.territories[c] for c in codes]
        tongues = sorted(c for c in self.locale.languages if len(c) == 2)
        self.languages = [self.locale.languages[c] for c in tongues]

    @property
    def spaced(self) -> bool:
        """Whether words are set apart by spaces and have upper case: not so in Chinese."""
        return self.code != "zh"

    def date(self, rng: random.Random) -> str:
        day = FIRST_DAY + timedelta(days=rng.randrange(DAYS))
        return str(format_date(day, format=rng.choice(STYLES), locale=self.locale))

    def money(self, rng: random.Random) -> str:
        amount = rng.randrange(1, 10 ** rng.randint(1, 6)) / rng.choice((1, 1, 100, 100, 100))
        style = rng.choice(("standard", "standard", "name"))
        currency = rng.choice(CURRENCIES)
        return str(format_currency(amount, currency, locale=self.locale, format_type=style))

    def number(self, rng: random.Random) -> str:
        value = rng.randrange(10 ** rng.randint(1, 6))
        return str(format_decimal(value, locale=self.locale))

    def unit(self, rng: random.Random) -> str:
        length = rng.choice(("long", "short"))
        return str(
            format_unit(
                rng.randrange(2, 2000), rng.choice(UNITS), length=length, locale=self.locale
            )
        )


@cache
def language(code: str) -> Language:
    return Language(code)


def code_word(rng: random.Random) -> str:
    """Digits and capitals without meaning, such as ``A47-2093``: something to copy exactly."""
    form = rng.choice(
        ("dd", "ddd", "dddd", "ddddd", "ddd-dd", "Ldd-dddd", "LLddd", "dd.ddd", "d/dd")
    )
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    pick = {"d": "0123456789", "L": letters}
    return "".join(rng.choice(pick[c]) if c in pick else c for c in form)


def clock(rng: random.Random) -> str:
    return f"{rng.randrange(24)}:{rng.randrange(60):02}"


def capital(text: str) -> str:
    """``text`` with its first letter in upper case; the rest stays."""
    return text[:1].upper() + text[1:]


class Scene(dict[str, str]):
    """Slot → what fills it in one little text, drawn when first asked for and kept from then on.

    ``{Animal}`` is ``{animal}`` with a capital; ``{name2}`` is drawn like ``{name}`` and differs.
    """

    def __init__(self, language: Language, rng: random.Random) -> None:
        super().__init__()
        self.language, self.rng = language, rng

    def __missing__(self, slot: str) -> str:
        value = capital(self[slot.lower()]) if slot[0].isupper() else self.draw(slot.rstrip("2"))
        while slot.endswith("2") and value == self[slot[:-1]]:
            value = self.draw(slot[:-1])
        self[slot] = value
        return value

    def draw(self, slot: str) -> str:
        """A new value for ``slot``; the scene does not remember it."""
        if slot in WORD_LISTS:
            return str(self.rng.choice(self.language.words[WORD_LISTS[slot]]))
        return DRAWS[slot](self.language, self.rng)

    def fill(self, template: str) -> str:
        return template.format_map(self)


WORD_LISTS: Final = {
    "name": "names",
    "city": "cities",
    "animal": "animals",
    "thing": "things",
    "foods": "foods",
    "colour": "colours",
    "place": "places",
    "activity": "activities",
    "adjective": "adjectives",
    "job": "jobs",
    "word": "words",
}

DRAWS: Final[dict[str, Callable[[Language, random.Random], str]]] = {
    "date": Language.date,
    "money": Language.money,
    "number": Language.number,
    "unit": Language.unit,
    "weekday": lambda language, rng: rng.choice(language.weekdays),
    "month": lambda language, rng: rng.choice(language.months),
    "country": lambda language, rng: rng.choice(language.countries),
    "language": lambda language, rng: rng.choice(language.languages),
    "age": lambda _, rng: str(rng.randint(3, 98)),
    "count": lambda _, rng: str(rng.randint(2, 60)),
    "time": lambda _, rng: clock(rng),
    "code": lambda _, rng: code_word(rng),
}
