"""Rejection: a row that is not learnt from, where it stands and why. Pure; judges nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BROKEN_ORDER: Final = "broken role order"
EMPTY_TURN: Final = "empty turn"


class InvalidRow(ValueError):
    """A row that cannot be learnt from. Its text says why, without file or row number; ``reason``
    is the group that it is counted in, None where it is no such record at all."""

    def __init__(self, detail: str, reason: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was not accepted: ``file`` (a name, no folder of this machine), ``row`` (from 1).

    ``reason`` is the group that it is counted in; ``detail`` says what is wrong with this very row.
    """

    file: str
    row: int
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.detail}"
