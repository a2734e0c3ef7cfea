"""The seedling's pre-training text: an endless, seeded stream of documents in five languages.

It mixes ``prose``, ``drills`` and ``chats`` and renders chats with the seedling's own template.
The same seed, Babel version and words give the same text.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from recipes.seedling import chats, drills, prose
from recipes.seedling.language import CODES, Language, language

TEMPLATE: Final = Path(__file__).parent / "chat_template.jinja"

Kind = Callable[[Language, random.Random], "str | chats.Chat"]
MIX: Final[dict[Kind, int]] = {
    prose.sentences: 9,
    prose.story: 6,
    prose.question: 8,
    prose.calendar: 4,
    prose.names: 3,
    drills.copying: 18,
    drills.reshaping: 6,
    drills.quoting: 5,
    drills.counting: 1,
    drills.sums: 1,
    drills.structure: 4,
    drills.code: 1,
    chats.chat: 34,
}
"""Kind of document → its share in percent of the documents."""


@cache
def template() -> str:
    """The seedling's chat template, as Jinja source."""
    return TEMPLATE.read_text(encoding="utf-8")


def render(chat: chats.Chat) -> str:
    """A chat as the template writes it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    tools: list[Any] | None = chat.tools or None
    rendered = render_jinja_template([chat.messages], tools=tools, chat_template=template())
    return str(rendered[0][0])


def documents(seed: int) -> Iterator[str]:
    """Document after document, without end; each in one language, all languages equally often."""
    rng = random.Random(seed)
    kinds, weights = list(MIX), list(MIX.values())
    while True:
        spoken = language(rng.choice(CODES))
        made = rng.choices(kinds, weights)[0](spoken, rng)
        yield made if isinstance(made, str) else render(made)


def take(seed: int, count: int) -> list[str]:
    """The first ``count`` documents of ``seed``."""
    return list(islice(documents(seed), count))


class Digest:
    """SHA-256 of documents as they pass, each ended by NUL, which no document holds."""

    def __init__(self) -> None:
        self.documents = 0
        self._hash = hashlib.sha256()

    def add(self, document: str) -> None:
        self.documents += 1
        self._hash.update(document.encode() + b"\0")

    def hex(self) -> str:
        return self._hash.hexdigest()
