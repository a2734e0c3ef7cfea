"""JSON values with exact numbers, compared as JSON means them. Pure."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from avocado.lineage import Json


def value_of(text: str) -> Json:
    """A JSON value with exact numbers.

    Raises:
        ValueError: not JSON, a key twice in an object, or nested too deeply to be an answer.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=unique,
            parse_constant=refuse_constant,
            parse_float=Decimal,
            parse_int=Decimal,
        )
    except (RecursionError, ArithmeticError) as error:
        raise ValueError(str(error)) from error


def equal(left: Json, right: Json) -> bool:
    """Whether two of :func:`value_of`'s values are one: the order of keys does not matter."""
    if type(left) is not type(right):  # Decimal(1) == True in Python
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def is_structure(text: str) -> bool:
    """Whether ``text`` is a JSON object or list."""
    try:
        return isinstance(value_of(text), dict | list)
    except ValueError:
        return False


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice and leaves its meaning open; we don't."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return value


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
