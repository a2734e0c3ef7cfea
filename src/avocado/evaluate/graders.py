"""Graders: what an answer is worth against the expected one, from 0 to 1. Pure.

Each grade is a table of settings, as an evaluation's TOML writes it. Knows no model, no prompt and
no token; a thought is cut off before (:func:`avocado.rewards.spoken`). ``choice`` and ``judge``
need a model to decide: :mod:`avocado.evaluate.choice` and :mod:`avocado.evaluate.judge`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from avocado.evaluate.json_values import equal, value_of
from avocado.evaluate.numbers import Unit, numbers
from avocado.rewards import Reward, Scorer

SECONDS: Final = 2.0
"""What matching one answer against one pattern may take."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="grade"):
    """What all grades have: a name in TOML (``grade = "…"``), and settings of their own."""

    @property
    def metric(self) -> str:
        """What a score is, in a table's words."""
        return "right answers"

    @property
    def needs_answer(self) -> bool:
        """Whether an item without an answer cannot be graded."""
        return True

    @property
    def decided_by_text(self) -> bool:
        """Whether :func:`grader` grades it, without any model."""
        return True


class Exact(Settings, frozen=True, tag="exact"):
    """The same text, white space at the ends and Unicode's composition (NFC) aside."""

    ignore_case: bool = False


class JsonValue(Settings, frozen=True, tag="json"):
    """The same JSON value, or the same text: key order, spaces and ``1.0`` for ``1`` aside."""


class JsonFields(Settings, frozen=True, tag="json_fields"):
    """A JSON object, field by field: the right ones' part of all that are expected or given.

    ``partial = false`` asks for all of them. ``fields`` names the only ones that count.
    """

    partial: bool = True
    fields: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        return "right fields" if self.partial else "right answers"


class Numeric(Settings, frozen=True, tag="numeric"):
    """The same number, as the item's language writes it (``1.234,5`` in German is ``1234.5``).

    An answer is written plainly in the suite: ``1234.5``, and its unit where ``units`` are given.
    ``tolerance`` is absolute, ``relative`` a part of the expected number; the larger one holds.
    ``units`` are factors to one unit, such as ``{km = 1000, m = 1}``: a number without one of them
    is wrong, unless ``""`` is among them. Without ``units``, what follows a number does not
    matter.
    ``pick``: ``only`` takes the one number that the answer may have, ``last`` the last of several.
    """

    tolerance: Annotated[float, Meta(ge=0)] = 0.0
    relative: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    units: dict[str, float] = {}
    pick: Literal["only", "last"] = "only"


class Regex(Settings, frozen=True, tag="regex"):
    """With ``pattern``: what it finds first (its group 1 if it has one) is the item's answer.
    Without: the item's answer is the pattern, and the whole answer must match it."""

    pattern: str | None = None


class Choice(Settings, frozen=True, tag="choice"):
    """The likeliest of an item's ``choices`` is the right one. ``normalize``: ``bytes`` divides the
    log-likelihood by the choice's bytes (UTF-8), so that long choices lose nothing; ``none``
    compares it as it is."""

    normalize: Literal["bytes", "none"] = "bytes"

    @property
    def decided_by_text(self) -> bool:
        return False

    @property
    def metric(self) -> str:
        return "acc_norm" if self.normalize == "bytes" else "acc"


class Judge(Settings, frozen=True, tag="judge"):
    """Another model prefers one of the two answers, asked twice with their places swapped: 1 for
    the checkpoint's, 0 for the base's, 0.5 where it finds neither better or contradicts itself.

    ``url`` is that of any OpenAI-compatible server; its key is read from the environment variable
    ``key_env``. ``instruction`` says what is better.
    """

    url: Annotated[str, Meta(pattern=r"^https?://")]
    model: Annotated[str, Meta(min_length=1)]
    key_env: str | None = None
    instruction: str = "Which answer serves the request better: more correct, complete and clear?"
    max_tokens: Annotated[int, Meta(ge=1)] = 512
    at_once: Annotated[int, Meta(ge=1, le=1024)] = 8

    @property
    def decided_by_text(self) -> bool:
        return False

    @property
    def metric(self) -> str:
        return "preferred answers"

    @property
    def needs_answer(self) -> bool:
        return False


class Rewarded(Settings, frozen=True, tag="reward"):
    """The weighted mean of ``rewards``, as reinforcement learns from (``[[suites.rewards]]``)."""

    rewards: Annotated[tuple[Reward, ...], Meta(min_length=1)]

    @property
    def metric(self) -> str:
        return "reward"

    @property
    def needs_answer(self) -> bool:
        return any(each.kind == "exact" for each in self.rewards)


class Harness(Settings, frozen=True, tag="lm_eval"):
    """A task of lm-evaluation-harness, which grades its answers itself by ``name``, one of its
    metrics; ``config`` is the SHA-256 of how the task is set up."""

    task: str
    name: str
    config: str

    @property
    def decided_by_text(self) -> bool:
        return False

    @property
    def metric(self) -> str:
        return self.name


Grade = Exact | JsonValue | JsonFields | Numeric | Regex | Choice | Judge | Rewarded | Harness
Own = Exact | JsonValue | JsonFields | Numeric | Regex | Choice | Judge | Rewarded
"""Those that an evaluation's TOML names as ``grade``."""


@dataclass(frozen=True, slots=True)
class Mark:
    """``score`` is 0..1; ``correct`` is None where an answer is more than right or wrong."""

    score: float
    correct: bool | None = None

    @classmethod
    def right(cls, right: bool) -> Mark:
        return cls(float(right), right)


Grader = Callable[[str, str, str, Mapping[str, Any]], Mark]
"""``(answer, expected, language, fields)`` to a mark; the answer is without its thought."""


def grader(grade: Grade) -> Grader:
    """The function that grades by ``grade``.

    Raises:
        ValueError: a pattern is no regular expression, or a unit's factor is 0; or ``grade`` is one
            that text alone does not decide.
        Refused: a reward's own settings are wrong.
    """
    match grade:
        case Exact():
            return _exact(grade)
        case JsonValue():
            return lambda said, expected, *_: Mark.right(_same_value(said, expected))
        case JsonFields():
            return lambda said, expected, *_: _fields(grade, said, expected)
        case Numeric():
            return _numeric(grade)
        case Regex():
            return _regex(grade)
        case Rewarded():
            return _rewarded(grade)
        case Choice() | Judge() | Harness():
            raise ValueError(f"{type(grade).__name__} is not decided by text alone")


def check_answer(grade: Grade, expected: str, choices: tuple[str, ...]) -> None:
    """Whether ``grade`` can hold anything against an item's answer.

    Raises:
        ValueError: it cannot; the sentence says why.
    """
    match grade:
        case JsonFields():
            if not isinstance(value_of(expected), dict):
                raise ValueError("grade json_fields needs an answer that is a JSON object")
        case Numeric():
            _expected_number(grade, expected)
        case Regex(pattern=None):
            _compiled(expected)
        case Choice():
            if len(choices) < 2 or len(set(choices)) < len(choices):
                raise ValueError("grade choice needs 'choices': two texts or more, all different")
            if expected not in choices:
                raise ValueError(f"the answer {expected!r} is none of the choices")
    if choices and not isinstance(grade, Choice):
        raise ValueError("'choices' belong to a suite with grade = \"choice\"")


def _exact(grade: Exact) -> Grader:
    def plain(text: str) -> str:
        text = unicodedata.normalize("NFC", text.strip())
        return unicodedata.normalize("NFC", text.casefold()) if grade.ignore_case else text

    return lambda said, expected, *_: Mark.right(plain(said) == plain(expected))


def _same_value(said: str, expected: str) -> bool:
    if said.strip() == expected.strip():
        return True
    try:
        return equal(value_of(said), value_of(expected))
    except ValueError:
        return False


def _fields(grade: JsonFields, said: str, expected: str) -> Mark:
    wanted = value_of(expected)
    try:
        given = value_of(said)
    except ValueError:
        given = None
    right, of = 0, 1
    if isinstance(given, dict) and isinstance(wanted, dict):
        names = set(grade.fields) or wanted.keys() | given.keys()
        found = [
            name in given and name in wanted and equal(given[name], wanted[name])
            for name in names
            if name in given or name in wanted
        ]
        right, of = (sum(found), len(found)) if found else (1, 1)
    return Mark(right / of) if grade.partial else Mark.right(right == of)


def _expected_number(grade: Numeric, expected: str) -> Decimal:
    """The expected number in the unit whose factor is 1."""
    head, _, unit = expected.strip().partition(" ")
    try:
        value = Decimal(head)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ValueError(
            f"grade numeric needs an answer written plainly, such as 1234.5, not {expected!r}"
        )
    if not grade.units:
        return value
    if unit.strip() not in grade.units:
        raise ValueError(f"the answer {expected!r} has none of the units: {', '.join(grade.units)}")
    return value * Decimal(str(grade.units[unit.strip()]))


def _numeric(grade: Numeric) -> Grader:
    if any(factor == 0 for factor in grade.units.values()):
        raise ValueError("a unit's factor must not be 0")
    units: tuple[Unit, ...] = tuple(
        (name, Decimal(str(factor))) for name, factor in grade.units.items()
    )

    def mark(said: str, expected: str, language: str, fields: Mapping[str, Any]) -> Mark:
        wanted = _expected_number(grade, expected)
        found = numbers(said, language, units)
        if not found or (grade.pick == "only" and len(found) > 1):
            return Mark.right(False)
        given = found[-1]
        allowed = max(Decimal(str(grade.tolerance)), Decimal(str(grade.relative)) * abs(wanted))
        return Mark.right(given is not None and abs(given - wanted) <= allowed)

    return mark


def _compiled(pattern: str) -> Any:
    # Python's own ``re`` cannot be stopped once it backtracks.
    import regex  # type: ignore[import-untyped]

    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def _regex(grade: Regex) -> Grader:
    finder = None if grade.pattern is None else _compiled(grade.pattern)

    def mark(said: str, expected: str, language: str, fields: Mapping[str, Any]) -> Mark:
        try:
            if finder is None:
                whole = _compiled(expected).fullmatch(said.strip(), timeout=SECONDS)
                return Mark.right(whole is not None)
            found = finder.search(said, timeout=SECONDS)
        except TimeoutError:  # whoever wrote such an answer did not write the expected one
            return Mark.right(False)
        if found is None:
            return Mark.right(False)
        text = found[1] if finder.groups else found[0]
        return Mark.right((text or "").strip() == expected.strip())

    return mark


def _rewarded(grade: Rewarded) -> Grader:
    scorer = Scorer(grade.rewards)

    def mark(said: str, expected: str, language: str, fields: Mapping[str, Any]) -> Mark:
        return Mark(scorer.score(said, expected or None, fields).total)

    return mark
