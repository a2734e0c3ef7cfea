"""Preview: what a model is shown of one record, and which tokens of it it learns to emit.

The sequences are those of ``length.rendered``, so this is the training text itself and no drawing
of it. Knows nothing of colours or terminals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from avocado.data.chat import IGNORED, ChatTemplate, Row
from avocado.data.length import rendered
from avocado.data.record import Record

Role = Literal["context", "trained", "stop"]
"""What a token is: seen only, learnt, or learnt as the end of the turn."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one ``role`` in a row, and their ``text``, token by token."""

    role: Role
    tokens: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.tokens)


@dataclass(frozen=True, slots=True)
class Shown:
    """One training sequence: its pieces in order, and how many of its tokens carry loss."""

    pieces: tuple[Piece, ...]
    tokens: int
    trained: int

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def to_json(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "trained": self.trained,
            "pieces": [{"role": each.role, "tokens": list(each.tokens)} for each in self.pieces],
        }


def preview(record: Record, template: ChatTemplate) -> list[Shown]:
    """The training sequences of ``record``.

    Raises:
        RenderError: the template cannot render it as serving would.
    """
    return [_shown(row, template) for row in rendered(record, template)]


def _shown(row: Row, template: ChatTemplate) -> Shown:
    roles = [_role(label, template) for label in row.labels]
    texts = list(_texts(row.ids, template))
    pieces = [
        Piece(role, tuple(texts[place] for place in places))
        for role, places in groupby(range(len(roles)), key=roles.__getitem__)
    ]
    return Shown(tuple(pieces), len(row.ids), row.trained)


def _role(label: int, template: ChatTemplate) -> Role:
    if label == IGNORED:
        return "context"
    return "stop" if label in template.stop_ids else "trained"


def _texts(ids: Sequence[int], template: ChatTemplate) -> Iterator[str]:
    """The text of each token. Of a character that several tokens make up (an emoji, a rare Han
    character) the last one has it all, and those before have none."""
    start = 0
    for end in range(1, len(ids) + 1):
        text = template.tokenizer.decode(
            ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if text.endswith("\N{REPLACEMENT CHARACTER}") and end < len(ids) and end - start < 4:
            yield ""
        else:
            yield str(text)
            start = end
