"""Provenance: where a row came from, in what language it is, and what its licence is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

UNKNOWN: Final = "unknown"
"""The licence of a row that states none. Whether it may be sold is for the licence gate to say."""

UNDETERMINED: Final = "und"
"""The language of a row that states none (BCP 47's own word for it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """``language`` is a BCP 47 tag, ``licence`` an SPDX id or the row's own word, ``source`` the
    data set that the row names, or its file; ``file`` and ``row`` (from 1) say where it was read.
    Rows of one ``group`` (a customer, a document) are held out together; ``""`` says nothing.
    """

    language: str = UNDETERMINED
    licence: str = UNKNOWN
    source: str = ""
    file: str = ""
    row: int = 0
    group: str = ""

    def provenance(self) -> dict[str, Any]:
        """As it stands in the row of a frozen corpus; :func:`read_provenance` is the inverse."""
        return {
            "language": self.language,
            "license": self.licence,
            "source": self.source,
            "file": self.file,
            "row": self.row,
            **({"group": self.group} if self.group else {}),
        }


def read_provenance(value: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a :class:`Provenance` from a corpus row."""
    return {
        "language": value["language"],
        "licence": value["license"],
        "source": value["source"],
        "file": value["file"],
        "row": value["row"],
        "group": value.get("group", ""),
    }
