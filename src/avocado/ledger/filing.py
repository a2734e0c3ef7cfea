"""What filing a document does to the rows: the part of the projection that is about documents."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from avocado.ledger import entry as e
from avocado.ledger.rows import DocumentRow, Filing, Series

if TYPE_CHECKING:
    from avocado.ledger.state import State


def filing_name(id_: str, revision: int) -> str:
    return f"{id_}@{revision}"


def digest_of(kind: str, tenant: str, content: dict[str, Any]) -> str:
    """What makes a filing the same again, whoever files it: SHA-256 of its JSON, keys sorted."""
    text = msgspec.json.encode([kind, tenant, content], order="sorted")
    return hashlib.sha256(text).hexdigest()


def filed(state: State, entry: e.DocumentFiled, seq: int, at: int) -> None:
    content = msgspec.json.encode(entry.content).decode()
    row = state.get(DocumentRow, entry.id)
    if row is None:
        row = state.add(
            DocumentRow(
                entry.id,
                entry.sort,
                entry.tenant,
                entry.revision,
                entry.series,
                entry.number,
                content,
                entry.actor,
                at,
                seq,
                seq,
            )
        )
    else:
        state.edit(row)
        row.revision, row.content, row.actor = entry.revision, content, entry.actor
        row.series, row.number, row.at, row.seq = entry.series, entry.number, at, seq
    name = filing_name(entry.id, entry.revision)
    digest = digest_of(entry.sort, entry.tenant, entry.content)
    state.add(Filing(name, entry.id, entry.revision, entry.number, digest, seq))
    if entry.series is not None and entry.number is not None:
        number(state, entry.series, entry.number)


def number(state: State, series: str, last: int) -> None:
    """Moves a series on; a later revision of a numbered document doesn't."""
    row = state.get(Series, series)
    if row is None:
        state.add(Series(series, last))
    elif last > row.last:
        state.edit(row).last = last
