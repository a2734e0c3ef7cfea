"""Copies of a book: backups of the whole, exports of transfers and usage as CSV or Parquet.

All run beside a writer. A SQLite backup is a book like any other; PostgreSQL has ``pg_dump``
(docs/ledger.md). Parquet needs pyarrow, which is imported only then.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from avocado.ledger.entry import DocumentFiled
from avocado.ledger.reader import Reader
from avocado.terms.money import Money

TRANSFERS: Final = ("seq", "at", "kind", "id", "tenant", "account", "currency", "nanos", "amount")
"""Columns of an export of transfers: one row a leg. ``at`` in ns, ``nanos`` exact, ``amount`` the
same as a decimal of the currency."""
USAGE: Final = (
    "seq",
    "at",
    "request",
    "tenant",
    "key_id",
    "offer",
    "release",
    "price_version",
    "prompt",
    "cached",
    "completion",
    "reasoning",
    "currency",
    "nanos",
    "amount",
    "refunded_nanos",
    "finish",
    "covered",
    "granted_nanos",
)
"""Columns of an export of usage: one row a settled request. ``covered`` tokens were paid by an
allowance, ``granted_nanos`` of the charge by grants."""
DOCUMENTS: Final = (
    "seq",
    "at",
    "id",
    "kind",
    "tenant",
    "revision",
    "series",
    "number",
    "actor",
    "content",
)
"""Columns of an export of documents: one row a revision, ``content`` as JSON."""
_CHUNK: Final = 50_000
_NUMBERS: Final = frozenset(
    (
        "seq",
        "at",
        "nanos",
        "refunded_nanos",
        "granted_nanos",
        "prompt",
        "cached",
        "completion",
        "reasoning",
        "covered",
        "revision",
        "number",
    )
)


def transfers(reader: Reader, after: int = 0) -> Iterator[tuple[Any, ...]]:
    """The legs of every journal entry later than sequence ``after``; see :data:`TRANSFERS`."""
    for record in reader.journal(after):
        entry = record.entry
        for account, nanos in getattr(entry, "legs", ()):
            currency = entry.currency  # type: ignore[union-attr]
            yield (
                record.seq,
                record.at,
                type(entry).__name__,
                getattr(entry, "id", ""),
                entry.tenant,  # type: ignore[union-attr]
                account,
                currency,
                nanos,
                Money(nanos, currency).decimal(),
            )


def usage(
    reader: Reader, tenant: str | None = None, since: int = 0, until: int = 2**63 - 1
) -> Iterator[tuple[Any, ...]]:
    """Settled requests with ``since`` ≤ settled at < ``until`` (ns); see :data:`USAGE`."""
    tenants = [tenant] if tenant else [customer.tenant for customer in reader.customers()]
    for name in tenants:
        for charge in reader.charges(name, since, until):
            used = charge.usage
            yield (
                charge.seq,
                charge.at,
                charge.request,
                charge.tenant,
                charge.key_id,
                charge.offer,
                charge.release,
                charge.price_version,
                used.prompt,
                used.cached,
                used.completion,
                used.reasoning,
                charge.currency,
                charge.charge,
                Money(charge.charge, charge.currency).decimal(),
                charge.refunded,
                charge.finish,
                charge.covered,
                charge.granted,
            )


def documents(reader: Reader, after: int = 0) -> Iterator[tuple[Any, ...]]:
    """Every revision filed later than sequence ``after``, in order; see :data:`DOCUMENTS`."""
    for record in reader.journal(after):
        entry = record.entry
        if isinstance(entry, DocumentFiled):
            yield (
                record.seq,
                record.at,
                entry.id,
                entry.sort,
                entry.tenant,
                entry.revision,
                entry.series,
                entry.number,
                entry.actor,
                msgspec.json.encode(entry.content).decode(),
            )


def write(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> int:
    """Writes rows to ``path``, as its suffix says: ``.csv`` or ``.parquet``. Returns their number.

    Raises:
        ValueError: another suffix.
    """
    writers: dict[str, Callable[[Path, tuple[str, ...], Iterable[tuple[Any, ...]]], int]] = {
        ".csv": _write_csv,
        ".parquet": _write_parquet,
    }
    if path.suffix not in writers:
        raise ValueError(f"{path.name}: an export is written as .csv or .parquet")
    return writers[path.suffix](path, columns, rows)


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_plain(value) for value in row])
            count += 1
    return count


def _plain(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a quote in front."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return value if _is_number(value) else f"'{value}"
    return value


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def _write_parquet(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> int:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError("an export as .parquet needs pyarrow; install it or use .csv") from None
    schema = pa.schema(
        [(name, pa.int64() if name in _NUMBERS else pa.string()) for name in columns]
    )
    count, left = 0, iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(left, _CHUNK)):
            count += len(chunk)
            values = [list(column) for column in zip(*chunk, strict=True)]
            writer.write_table(pa.table(values, schema=schema))
    return count


def backup(source: Path, target: Path) -> None:
    """Copies the SQLite book at ``source`` to ``target``, as of one moment, while it is written to.

    Raises:
        FileExistsError: there is something at ``target``.
        LedgerUnavailable: there is no book at ``source``.
    """
    from avocado.ledger.sqlite import copy

    if target.exists():
        raise FileExistsError(f"{target} exists; a backup never overwrites")
    copy(source, target)
