"""Documents of the ledger as typed values: how the rooms of billing read and file them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from avocado.errors import Refused
from avocado.ledger.errors import LedgerError
from avocado.ledger.operation import AnyOperation, AnyResult, File
from avocado.ledger.reader import Reader

T = TypeVar("T", bound=msgspec.Struct)

Do = Callable[[AnyOperation], AnyResult]
"""Does one operation of the ledger, durably; see ``cli.book.writing``."""
ATTEMPTS: Final = 50


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """A document as it stands: revision 0 means that there is none."""

    value: T
    revision: int


def code_of(error: Exception) -> str:
    """The ledger's stable code of a refusal, whether it was met here or came through a socket."""
    return str(getattr(error, "code", ""))


Refusals: Final = (LedgerError, Refused)
"""How ``do`` says no: directly, or through the running server."""


def read(reader: Reader, id_: str, kind: type[T]) -> Stored[T] | None:
    """The newest revision of a document, or None if there is none."""
    found = reader.document(id_)
    if found is None:
        return None
    return Stored(msgspec.convert(found.content, kind), found.revision)


def content_of(value: msgspec.Struct) -> dict[str, Any]:
    """A struct as a document's content. Dates become text; what has its default is left out."""
    made: dict[str, Any] = msgspec.to_builtins(value)
    return made


def file(
    do: Do,
    id_: str,
    kind: str,
    tenant: str,
    value: msgspec.Struct,
    revision: int,
    actor: str = "",
) -> bool:
    """Files a revision. False: somebody else filed another content under it meanwhile, so whoever
    asks has to read again and decide again.

    Raises:
        LedgerError, Refused: anything else that the ledger says no to.
    """
    operation = File(
        id=id_, kind=kind, tenant=tenant, content=content_of(value), revision=revision, actor=actor
    )
    try:
        do(operation)
    except Refusals as error:
        if code_of(error) == "document_conflict":
            return False
        raise
    return True


def busy(what: str) -> Refused:
    """What is said when others keep changing a document faster than we can."""
    return Refused(f"{what} is being changed by others all the time: try again")
