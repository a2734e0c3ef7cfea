"""Decisions about documents: what the seller and its customers agreed on, filed beside the money.

A document is JSON under an id, with revisions; the journal keeps every one. The ledger understands
nothing of its content. It sees to what only the one writer can: that a revision follows its
predecessor, and that numbers of a series have no gap. Pure.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from avocado.ledger import entry as e
from avocado.ledger import errors
from avocado.ledger import operation as o
from avocado.ledger.filing import digest_of, filing_name
from avocado.ledger.holds import Now, customer_of
from avocado.ledger.rows import DocumentRow, Filing, Series
from avocado.ledger.state import State
from avocado.terms.money import MAX_NANOS

MAX_BYTES: Final = 1 << 20
"""The most that a document's JSON may take."""
_DEPTH: Final = 64


def check_document(op: o.File) -> None:
    """Refuses what the journal cannot keep or give back as it was. Runs in the caller.

    Raises:
        NotAllowed: a number that is no int64, NUL or a lone surrogate in a text, a key that is no
            text, more than :data:`MAX_BYTES`, or nesting beyond 64 levels.
    """
    if type(op.content) is not dict or type(op.revision) is not int or op.series == "":
        raise errors.NotAllowed(
            "a document needs an object as its content, a whole revision, and a series with a name"
        )
    level: list[Any] = [op.content]
    for _ in range(_DEPTH):
        level = [part for value in level for part in _parts(value)]
        if not level:
            break
    else:
        raise errors.NotAllowed(f"a document is nested at most {_DEPTH} levels deep")
    try:
        size = len(msgspec.json.encode(op.content))
    except UnicodeEncodeError:
        raise errors.NotAllowed("a document's text must be Unicode without surrogates") from None
    if size > MAX_BYTES:
        raise errors.NotAllowed(f"a document takes at most {MAX_BYTES} bytes as JSON, not {size}")


def _parts(value: Any) -> list[Any]:
    """What a value contains. Raises NotAllowed for one that JSON would not give back."""
    kind = type(value)
    if kind is dict:
        return [*value.keys(), *value.values()] if all(type(k) is str for k in value) else _bad(1)
    if kind is list or kind is tuple:
        return list(value)
    if kind is str:
        return _bad("\0") if "\0" in value else []
    if kind is int:
        return _bad(value) if abs(value) > MAX_NANOS else []
    return [] if value is None or kind is bool else _bad(value)


def _bad(value: Any) -> list[Any]:
    raise errors.NotAllowed(
        f"a document is JSON of text without NUL, true, false, null and integers of 64 bits, with "
        f"text as keys; {value!r} is none of these (write an amount as its nano-units)"
    )


def file(state: State, op: o.File, now: Now) -> o.Filed:
    """Files a revision, or says what is on record instead."""
    known = state.get(DocumentRow, op.id)
    before = state.get(Filing, filing_name(op.id, op.revision))
    if known is not None and before is not None:
        other_series = op.series not in (None, known.series)
        if other_series or before.digest != digest_of(op.kind, op.tenant, op.content):
            raise errors.DocumentConflict(op.id, known.revision, _differences(known, op))
        return o.Filed(
            seq=before.seq, replayed=True, id=op.id, revision=op.revision, number=before.number
        )
    _check_place(state, op, known)
    series, number = _numbered(state, op, known)
    entry = e.DocumentFiled(
        id=op.id,
        sort=op.kind,
        tenant=op.tenant,
        revision=op.revision,
        series=series,
        number=number,
        actor=op.actor,
        content=op.content,
    )
    return o.Filed(seq=state.post(entry, now.at), id=op.id, revision=op.revision, number=number)


def _check_place(state: State, op: o.File, known: DocumentRow | None) -> None:
    """Raises DocumentConflict for a revision that follows nothing, or changes what it is of."""
    if not op.id or not op.kind:
        raise errors.NotAllowed("a document needs an id and a kind")
    if op.tenant:
        customer_of(state, op.tenant)
    stored = known.revision if known is not None else 0
    if op.revision != stored + 1:
        raise errors.DocumentConflict(op.id, stored, ("revision",))
    if known is not None and (known.kind, known.tenant) != (op.kind, op.tenant):
        raise errors.DocumentConflict(op.id, stored, _differences(known, op))


def _numbered(state: State, op: o.File, known: DocumentRow | None) -> tuple[str | None, int | None]:
    """(series, number): a document keeps those it has; else it gets the next of the series."""
    if known is not None and known.series is not None:
        if op.series not in (None, known.series):
            raise errors.DocumentConflict(op.id, known.revision, ("series",))
        return known.series, known.number
    if op.series is None:
        return None, None
    counter = state.get(Series, op.series)
    return op.series, (counter.last if counter is not None else 0) + 1


def _differences(known: DocumentRow, op: o.File) -> tuple[str, ...]:
    """The fields, and the top keys of the content, in which ``op`` is not what is on record."""
    found = [name for name in ("kind", "tenant") if getattr(known, name) != getattr(op, name)]
    if op.series not in (None, known.series):
        found.append("series")
    stored = msgspec.json.decode(known.content)
    found += [
        f"content.{name}"
        for name in sorted(stored.keys() | op.content.keys())
        if stored.get(name) != op.content.get(name)
    ]
    return tuple(found) or ("an older revision's content",)
