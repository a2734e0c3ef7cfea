"""Rejection: a row that is not learnt from, where it stands and why. Pure; judges nothing."""

from __future__ import annotations

from dataclasses import dataclass


class InvalidRow(ValueError):
    """A row that cannot be learnt from. Its text is the reason, without file or row number."""


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
