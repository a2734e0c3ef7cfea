"""Words: everything that the console says, in every language that it speaks.

``words/<area>.toml`` has ``key = ["English", "German"]`` under the heading of a page, so that no
language can miss a key. A text may hold ``{name}`` for a value, and ``one|many`` for a ``count``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

import msgspec

Language = Literal["en", "de"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "de")
NAMES: Final[dict[Language, str]] = {"en": "English", "de": "Deutsch"}

Catalogue = Mapping[str, tuple[str, ...]]


@cache
def catalogue() -> Catalogue:
    """Every key (``page.word``) and its texts, in the order of :data:`LANGUAGES`.

    Raises:
        ValueError: a text misses a language, or two files have the same key.
    """
    found: dict[str, tuple[str, ...]] = {}
    folder = files("avocado.console") / "words"
    for path in sorted(folder.iterdir(), key=lambda each: each.name):
        if not path.name.endswith(".toml"):
            continue
        pages = msgspec.toml.decode(path.read_bytes(), type=dict[str, dict[str, list[str]]])
        for page, words in pages.items():
            for word, texts in words.items():
                key = f"{page}.{word}"
                if len(texts) != len(LANGUAGES) or not all(texts):
                    raise ValueError(f"{path.name}: {key} needs {len(LANGUAGES)} texts")
                if key in found:
                    raise ValueError(f"{path.name}: {key} is said in another file already")
                found[key] = tuple(texts)
    return found


@dataclass(frozen=True)
class Speaker:
    """Says the catalogue's words in one language."""

    language: Language

    def say(self, key: str, **values: object) -> str:
        """The text of ``key``. Raises KeyError for a key that nobody wrote."""
        text = catalogue()[key][LANGUAGES.index(self.language)]
        if "count" in values and "|" in text:
            one, _, many = text.partition("|")
            text = one if values["count"] == 1 else many
        return text.format_map(values) if values else text

    def has(self, key: str) -> bool:
        return key in catalogue()


def choose(wanted: str | None, accepted: str) -> Language:
    """The language that a person set, or the one of ours that their browser likes best."""
    for language in LANGUAGES:
        if wanted == language:
            return language
    liked: list[tuple[float, Language]] = []
    for part in accepted[:500].split(","):
        tag, _, weight = part.partition(";q=")
        name = tag.strip().lower().partition("-")[0]
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            continue
        liked += [(quality, each) for each in LANGUAGES if each == name and quality > 0]
    return max(liked, key=lambda each: each[0])[1] if liked else "en"
