"""Length: the token sequences that a record becomes for one model, before it is trained on.

Rendered by ``chat``, so the counts are those of the run. Knows nothing about what is too long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avocado.data.chat import Chat, ChatTemplate, Row
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.data.record import Record


@dataclass(frozen=True, slots=True)
class Length:
    """Of one sequence: all its ``tokens``, and those ``trained``, which carry loss."""

    tokens: int
    trained: int


def rendered(record: Record, template: ChatTemplate) -> list[Row]:
    """The sequences of ``record``: one a conversation (or more, see ``ChatTemplate.rows``), two a
    pair (the chosen answer first), one a labelled answer or a document. Of a problem it is the
    prompt, which carries no loss: the answers are the model's own.

    Raises:
        RenderError: the template cannot render it as serving would.
    """
    match record:
        case Example():
            return template.rows(record.messages, record.tools)
        case Preference():
            answers: Sequence[Mapping[str, Any]] = (record.chosen, record.rejected)
            return [_answered(template, record.prompt, each, record.tools) for each in answers]
        case Label():
            return [_answered(template, record.prompt, record.answer, record.tools)]
        case Problem():
            ids = template.prompt(Chat(record.messages, record.tools)).ids
            return [Row(ids, (-100,) * len(ids))]
        case Document():
            ids = (*template.encode(record.text), int(template.tokenizer.eos_token_id))
            return [Row(ids, ids)]


def lengths(record: Record, template: ChatTemplate) -> list[Length]:
    """How long the sequences of ``record`` are. Raises as :func:`rendered` does."""
    return [Length(len(row.ids), row.trained) for row in rendered(record, template)]


def _answered(
    template: ChatTemplate,
    prompt: Sequence[Mapping[str, Any]],
    answer: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]],
) -> Row:
    """The prompt and this answer, of which only the answer is learnt."""
    context = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in prompt]
    (row,) = template.rows([*context, {**answer, "weight": 1}], tools)
    return row
