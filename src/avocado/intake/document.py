"""JSON from strangers: bounded before it is read, and no key twice. Knows nothing about models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avocado.errors import Refused


def read_object(path: Path, limit: int) -> Mapping[str, Any]:
    """The JSON object in ``path``, which may hold at most ``limit`` bytes.

    Raises:
        Refused: it is missing, too long, no JSON, no object, or says one key twice.
    """
    try:
        size = path.stat().st_size
        if size > limit:
            raise Refused(f"{path.name} holds {size:,} bytes; at most {limit:,} are accepted")
        data = path.read_bytes()
    except FileNotFoundError:
        raise Refused(f"{path.parent.name} has no {path.name}: it holds no model") from None
    except OSError as error:
        raise Refused(f"{path.name} cannot be read: {error.strerror}") from error
    try:
        return parse_object(data)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path.name} is not JSON: {error}") from error


def parse_object(data: bytes) -> Mapping[str, Any]:
    """The JSON object in ``data``.

    Raises:
        ValueError: no JSON, no object, NaN, or one key twice: readers differ on which of two holds.
        RecursionError: it is nested too deep.
    """
    value = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError("it must hold an object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
