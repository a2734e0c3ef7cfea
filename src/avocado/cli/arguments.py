"""Types of arguments, and the workspace that a command works in."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from avocado.terms.money import Money, MoneyError
from avocado.workspace import Workspace


class Amount(click.ParamType[Money]):
    """Decimal units such as ``12`` or ``0.20``, exact to nine decimals; no exponent, and a minus
    sign only where ``signed`` lets it."""

    name = "amount"

    def __init__(self, signed: bool = False) -> None:
        self._signed = signed

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Money:
        if isinstance(value, Money):
            return value
        try:
            if self._signed and value.startswith("-"):
                return -Money.parse(value[1:])
            return Money.parse(value)
        except MoneyError as error:
            self.fail(str(error), param, ctx)


class Month(click.ParamType[tuple[int, int]]):
    """``2026-11``: (first nanosecond, first nanosecond of the next month), UTC."""

    name = "yyyy-mm"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", value)
        if match is None:
            self.fail(f"{value!r} is not a month such as 2026-11", param, ctx)
        year, month = int(match.group(1)), int(match.group(2))
        after = (year + month // 12, month % 12 + 1)
        return nanoseconds(year, month), nanoseconds(*after)


class Moment(click.ParamType[int]):
    """``2026-12-01`` or ``2026-12-01T09:00``, UTC: Unix seconds."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date such as 2026-12-01 or 2026-12-01T09:00", param, ctx)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


class OrNone(click.ParamType[Any]):
    """A value of another type, or ``none``, which takes it away (as :data:`AWAY`)."""

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self._kind = kind
        self.name = f"{kind.name}|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return AWAY if value in ("none", AWAY) else self._kind.convert(value, param, ctx)


AWAY = "\0none"
"""What was asked to be taken away."""


def nanoseconds(year: int, month: int) -> int:
    """The first instant of a month, UTC, in ns since 1970."""
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1_000_000_000


def this_month() -> tuple[int, int]:
    """The current month, UTC, as :class:`Month` gives it."""
    now = datetime.now(UTC)
    after = (now.year + now.month // 12, now.month % 12 + 1)
    return nanoseconds(now.year, now.month), nanoseconds(*after)


def workspace_here() -> Workspace:
    """The workspace of the current folder."""
    return Workspace.find(Path.cwd())


EXISTING = click.Path(path_type=Path)
"""A path as typed; rooms say what is wrong with it better than click does."""
