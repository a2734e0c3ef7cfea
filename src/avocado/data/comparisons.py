"""Comparisons: rows that say which of two answers is better, or whether one is good.

Reads TRL's forms (with the prompt apart or inside both answers, as messages or as text), OpenAI's
preference form, Anthropic's transcripts and labelled answers. Each reader takes a row (an object
without empty columns) and gives the parts of a record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from avocado.data import turns
from avocado.data.conversations import Row, answers, prompt
from avocado.data.rejection import InvalidRow
from avocado.data.turns import Turn

_LABELS: Final[Mapping[Any, bool]] = {
    **{True: True, "true": True, "True": True, "1": True},
    **{False: False, "false": False, "False": False, "0": False},
}
"""Python's True and 1 are one key, so the numbers are in here too."""

_SPEAKER: Final = re.compile(r"\n\n(Human|Assistant):")


def pair(row: Row) -> dict[str, Any]:
    """The parts of a preference from ``chosen``, ``rejected`` and, where it stands apart,
    ``prompt``.

    Raises:
        InvalidRow: they have no one prompt, differ before their last turn, or do not differ.
    """
    sides = [row["chosen"], row["rejected"]]
    if all(isinstance(side, str) for side in sides) and "prompt" not in row:
        chosen, rejected = _from_texts(*sides)
    elif all(isinstance(side, str) for side in sides) or not any(
        isinstance(side, str) for side in sides
    ):
        given = prompt(row["prompt"]) if "prompt" in row else ()
        chosen = _whole(given, answers(sides[0], "chosen"), "chosen")
        rejected = _whole(given, answers(sides[1], "rejected"), "rejected")
    else:
        raise InvalidRow("chosen and rejected must both be texts or both be lists of messages")
    return _parted(chosen, rejected, row.get("tools"))


def openai_pair(row: Row) -> dict[str, Any]:
    """The parts of a preference in OpenAI's form: ``input.messages``, ``preferred_output`` and
    ``non_preferred_output``."""
    given = row.get("input")
    if not isinstance(given, dict) or "messages" not in given:
        raise InvalidRow("input must be an object with messages")
    asked = turns.messages(given["messages"], "input.messages")
    better = answers(row["preferred_output"], "preferred_output")
    worse = answers(row["non_preferred_output"], "non_preferred_output")
    return _parted((*asked, *better), (*asked, *worse), given.get("tools"))


def label(row: Row) -> dict[str, Any]:
    """The parts of a labelled answer: ``label`` beside ``prompt`` and ``completion``, or beside
    ``messages`` that end with the answer."""
    value = row["label"]
    if not isinstance(value, bool | int | str) or value not in _LABELS:
        raise InvalidRow(f"label must be true or false, not {value!r}")
    if "messages" in row:
        whole = turns.messages(row["messages"])
    else:
        whole = (*prompt(row["prompt"]), *answers(row["completion"], "completion"))
    turns.check_conversation(whole)
    return {
        "prompt": whole[:-1],
        "answer": whole[-1],
        "desirable": _LABELS[value],
        "tools": turns.tools(row.get("tools")),
    }


def _parted(chosen: Sequence[Turn], rejected: Sequence[Turn], tools: Any) -> dict[str, Any]:
    """Two conversations that are one up to their last turn."""
    for place, (one, other) in enumerate(zip(chosen[:-1], rejected[:-1], strict=False), 1):
        if one != other:
            raise InvalidRow(
                f"chosen and rejected differ in turn {place}: only the last may differ"
            )
    if len(chosen) != len(rejected):
        raise InvalidRow(
            f"chosen has {len(chosen)} turns and rejected {len(rejected)}: only the last may differ"
        )
    if chosen[-1] == rejected[-1]:
        raise InvalidRow("chosen and rejected are the same")
    for whole in (chosen, rejected):
        turns.check_conversation(whole)
    return {
        "prompt": tuple(chosen[:-1]),
        "chosen": chosen[-1],
        "rejected": rejected[-1],
        "tools": turns.tools(tools),
    }


def _whole(given: Sequence[Turn], said: Sequence[Turn], column: str) -> tuple[Turn, ...]:
    """The prompt and the answer, where ``said`` may hold the prompt already."""
    if said[0]["role"] == "assistant":
        return (*given, *said)
    if not all(turn in said[:-1] for turn in given):
        raise InvalidRow(f"{column} is a whole conversation, but the prompt is not in it")
    return tuple(said)


def _from_texts(chosen: str, rejected: str) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """Anthropic's transcripts turn by turn; of other texts, what both begin with is the prompt.

    A word is not cut: TRL's ``extract_prompt`` goes back by a space for the same reason.
    """
    transcripts = [_transcript(chosen), _transcript(rejected)]
    if transcripts[0] and transcripts[1]:
        return transcripts[0], transcripts[1]
    same = next(
        (
            place
            for place, (one, other) in enumerate(zip(chosen, rejected, strict=False))
            if one != other
        ),
        min(len(chosen), len(rejected)),
    )
    shared = chosen[:same]
    asked = re.sub(r"\w+$", "", shared) or shared
    if not asked.strip():
        raise InvalidRow("it has no prompt, and chosen and rejected begin with nothing in common")
    turn = turns.user(asked.rstrip(), "prompt")
    return (
        (turn, turns.assistant(chosen[len(asked) :], "chosen")),
        (turn, turns.assistant(rejected[len(asked) :], "rejected")),
    )


def _transcript(text: str) -> tuple[Turn, ...]:
    """``\\n\\nHuman: …\\n\\nAssistant: …`` as turns; nothing where it is no transcript."""
    cut = _SPEAKER.split("\n\n" + text.lstrip())
    if len(cut) < 5 or cut[0].strip():
        return ()
    roles = {"Human": turns.user, "Assistant": turns.assistant}
    return tuple(
        roles[who](said.strip(), f"{who}'s turn")
        for who, said in zip(cut[1::2], cut[2::2], strict=True)
    )
