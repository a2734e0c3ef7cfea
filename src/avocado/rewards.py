"""Rewards: how good an answer is, from 0 to 1, by rules that can be checked.

Reinforcement judges the model's own answers by them, distillation its teachers', and an evaluation
may. The same answer always gets the same reward. Knows no model, no prompt and no token.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from avocado.errors import Refused

SECONDS: Final = 2.0
"""What matching one answer against one pattern may take. A pattern that takes longer backtracks
without end: on most answers it takes microseconds."""

SHOWN: Final = 80
"""Characters of an answer that an error quotes."""

THOUGHT: Final = "</think>"


class Reward(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[…rewards]]``: how an answer is judged, from 0 to 1. ``weight`` is its part of the total,
    which is the weighted mean of all. Thinking is never judged.

    ``exact``: equal to the row's ``reference``; ``json_schema``: JSON that fits ``schema``;
    ``regex``: the whole answer matches ``pattern``; ``function``: what ``function``
    (``"module:name"``) returns for ``(answer, reference, row)``, row being the row's own fields.
    """

    kind: Literal["exact", "json_schema", "regex", "function"]
    weight: Annotated[float, Meta(gt=0.0, le=1000.0)] = 1.0
    pattern: str | None = None
    schema: dict[str, Any] | None = None
    function: Annotated[str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None

    def __post_init__(self) -> None:
        needed = {"json_schema": "schema", "regex": "pattern", "function": "function"}
        for kind, key in needed.items():
            if (self.kind == kind) != (getattr(self, key) is not None):
                raise ValueError(f'{key} belongs to a reward of kind = "{kind}", which needs it')


Judge = Callable[[str, str | None, Mapping[str, Any]], float]
"""``(answer, reference, fields)`` to a number from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Scored:
    """``total`` is the weighted mean of ``parts``, each from 0 to 1, under their names."""

    total: float
    parts: Mapping[str, float]


class Scorer:
    """Rewards that were checked and are ready to judge.

    Raises:
        Refused: a schema or a pattern is invalid, or a function cannot be imported or called.
    """

    def __init__(self, rewards: Sequence[Reward]) -> None:
        self._judges: list[tuple[str, float, Judge]] = []
        self.sources = {
            each.function: _source(each.function) for each in rewards if each.function is not None
        }
        """By function, the SHA-256 of the file that it stands in: a recipe only names it."""
        self.needs_reference = any(each.kind == "exact" for each in rewards)
        """Whether a row without a reference cannot be judged."""
        names: list[str] = []
        for reward in rewards:
            name = (reward.function or reward.kind).rpartition(":")[2]
            names.append(name)
            seen = names.count(name)
            named = name if seen == 1 else f"{name}_{seen}"
            self._judges.append((named, reward.weight, _judge(reward)))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts, in the recipe's order."""
        return tuple(name for name, _, _ in self._judges)

    def score(
        self,
        answer: str,
        reference: str | None = None,
        fields: Mapping[str, Any] | None = None,
        *,
        thinking: bool = False,
    ) -> Scored:
        """Judges ``answer``, its thought and the white space around it cut off.

        ``thinking`` says that the prompt had opened a thought, so that the answer begins in it.

        Raises:
            Refused: a reward cannot judge it: there is no reference, a pattern takes too long, a
                function raises or returns what is no number from 0 to 1.
        """
        said = spoken(answer, thinking=thinking).strip()
        parts = {name: judge(said, reference, fields or {}) for name, _, judge in self._judges}
        weights = sum(weight for _, weight, _ in self._judges)
        total = sum(weight * parts[name] for name, weight, _ in self._judges) / weights
        return Scored(total, parts)


def score(
    rewards: Sequence[Reward],
    answer: str,
    reference: str | None = None,
    fields: Mapping[str, Any] | None = None,
    *,
    thinking: bool = False,
) -> Scored:
    """:meth:`Scorer.score` by ``rewards``, which are made ready once. Raises as both do."""
    scorer = _scorer(msgspec.json.encode(tuple(rewards)))
    return scorer.score(answer, reference, fields, thinking=thinking)


def spoken(text: str, *, thinking: bool = False) -> str:
    """What was said after thinking: nothing, where a thought was begun and never ended."""
    before, mark, after = text.partition(THOUGHT)
    if mark:
        return after
    return "" if thinking or before.lstrip().startswith("<think>") else text


@lru_cache(maxsize=16)
def _scorer(encoded: bytes) -> Scorer:
    return Scorer(msgspec.json.decode(encoded, type=tuple[Reward, ...]))


def _judge(reward: Reward) -> Judge:
    if reward.kind == "json_schema":
        return _fits(reward.schema or {})
    if reward.kind == "regex":
        return _matches(reward.pattern or "")
    if reward.kind == "function":
        return _returns(reward.function or "")
    return _equals


def _equals(answer: str, reference: str | None, fields: Mapping[str, Any]) -> float:
    if reference is None:
        raise Refused('a reward of kind = "exact" needs rows with a reference, and one has none')
    return float(answer == reference.strip())


def _matches(pattern: str) -> Judge:
    # Python's own ``re`` cannot be stopped once it backtracks.
    import regex  # type: ignore[import-untyped]

    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise Refused(
            f"the reward's pattern {pattern!r} is no regular expression: {error}"
        ) from None

    def judge(answer: str, reference: str | None, fields: Mapping[str, Any]) -> float:
        try:
            return float(compiled.fullmatch(answer, timeout=SECONDS) is not None)
        except TimeoutError:
            raise _too_slow(pattern, answer) from None

    return judge


def _fits(schema: Mapping[str, Any]) -> Judge:
    import regex
    from jsonschema import SchemaError, ValidationError, validators
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    def pattern(_: Any, pattern: str, instance: Any, __: Any) -> Any:
        """The keyword ``pattern``, with a limit."""
        try:
            if isinstance(instance, str) and not regex.search(pattern, instance, timeout=SECONDS):
                yield ValidationError(f"it does not match {pattern!r}")
        except TimeoutError:
            raise _too_slow(pattern, instance) from None

    kind = validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise Refused(f"the reward's schema is no JSON Schema: {error.message}") from None
    # An empty registry: a reference to elsewhere is an error, and is never fetched.
    validator = validators.extend(kind, {"pattern": pattern})(schema, registry=Registry())

    def judge(answer: str, reference: str | None, fields: Mapping[str, Any]) -> float:
        try:
            return float(validator.is_valid(json.loads(answer, parse_constant=_no_constant)))
        except (ValueError, ArithmeticError, RecursionError):
            return 0.0
        except Unresolvable as error:
            raise Refused(f"the reward's schema refers to what it does not hold: {error}") from None

    return judge


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _too_slow(pattern: str, answer: str) -> Refused:
    return Refused(
        f"the reward's pattern {pattern!r} took over {SECONDS:g} s on {_short(answer)}: "
        "write it without nested repeats"
    )


def _returns(path: str) -> Judge:
    function = _imported(path)

    def judge(answer: str, reference: str | None, fields: Mapping[str, Any]) -> float:
        try:
            value = function(answer, reference, fields)
        except Exception as error:  # whatever its author chose to raise
            raise Refused(
                f"the reward {path} raised {type(error).__name__}: {error}, on {_short(answer)}"
            ) from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number <= 1:
            raise Refused(
                f"the reward {path} returned {value!r} on {_short(answer)}; "
                "it must be a number from 0 to 1"
            )
        return number

    return judge


def _imported(path: str) -> Callable[..., Any]:
    """The function of ``module:name``; a module of the working directory is found too, after those
    that are installed."""
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # a module's own code may raise anything
        raise Refused(
            f"the reward {path}: the module {module} cannot be imported "
            f"({type(error).__name__}: {error})"
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        what = "has nothing of that name" if found is None else "is no function"
        raise Refused(f"the reward {path}: {module}'s {name} {what}")
    return found  # type: ignore[no-any-return]


def _source(path: str) -> str:
    file = getattr(sys.modules[_imported(path).__module__], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else "built in"


def _short(answer: str) -> str:
    return repr(answer if len(answer) <= SHOWN else f"{answer[:SHOWN]}…")
