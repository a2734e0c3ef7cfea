"""One batch: many operations, one transaction. The same code over every store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from avocado.ledger import failpoint, load
from avocado.ledger import operation as o
from avocado.ledger.book import AnyInternal, decide
from avocado.ledger.errors import (
    Duplicate,
    HoldNotOpen,
    LedgerCorrupt,
    LedgerError,
    LedgerUnavailable,
)
from avocado.ledger.holds import Now
from avocado.ledger.state import State

Outcome: TypeAlias = o.AnyResult | LedgerError


class Store(Protocol):
    """Where a book lives. One thread uses it. Every method may raise LedgerUnavailable."""

    epoch: str
    patience: float | None
    """Seconds after which callers are told that the store does not answer; None: they wait."""

    def begin(self) -> State:
        """Starts a transaction and returns the state to decide on; checks that the epoch lives."""

    def write(self, state: State) -> None:
        """Writes the state's journal entries and touched rows, each under its guard."""

    def touch(self) -> None:
        """Writes something that means nothing, so that the commit has something to sync."""

    def commit(self) -> None:
        """Returns when the transaction is durable."""

    def rollback(self) -> None:
        """Gives the transaction up, if one is open. Never raises."""

    def reopen(self) -> None:
        """Connects afresh after a failure."""

    def beat(self) -> None:
        """Says that this epoch lives, and ends epochs that have stopped saying so."""

    def orphans(self) -> list[str]:
        """Open holds whose epoch has ended."""

    def overdue(self, at: int) -> list[str]:
        """Customers with grants or allowances that ended at ``at`` (ns) or before, and of which
        something is left."""

    def tidy(self) -> None:
        """Housekeeping that may take its time, between batches."""

    def close(self) -> None: ...


class _Poison(Exception):
    """The operation at ``index`` broke the code that decides; the state is not to be trusted."""

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(index)
        self.index = index
        self.cause = cause


def run(store: Store, operations: Sequence[AnyInternal], at: int) -> list[Outcome]:
    """Decides and commits ``operations``; an outcome each, in order. Durable when it returns.

    Raises:
        LedgerUnavailable: nothing was acknowledged. What reached the disk, if anything, is found
            by its id when it is asked for again.
    """
    broken: dict[int, Outcome] = {}
    while True:
        try:
            return _attempt(store, operations, at, broken)
        except _Poison as poison:
            store.rollback()
            error = LedgerError(f"internal: {type(poison.cause).__name__}: {poison.cause}")
            error.__cause__ = poison.cause
            broken[poison.index] = error
        except BaseException:
            store.rollback()
            raise


def _attempt(
    store: Store, operations: Sequence[AnyInternal], at: int, broken: dict[int, Outcome]
) -> list[Outcome]:
    state = store.begin()
    load.load(state, operations, at)
    now = Now(at, store.epoch)
    outcomes: list[Outcome] = []
    for index, operation in enumerate(operations):
        if index in broken:
            outcomes.append(broken[index])
            continue
        try:
            outcomes.append(decide(state, operation, now))
        except (LedgerCorrupt, LedgerUnavailable):
            raise
        except LedgerError as refusal:
            outcomes.append(refusal)
        except Exception as error:
            raise _Poison(index, error) from error
    store.write(state)
    if not state.written and any(_repeats(outcome) for outcome in outcomes):
        store.touch()
    if failpoint.armed:
        _pass_by("before", operations)
    store.commit()
    state.committed()
    if failpoint.armed:
        _pass_by("after", operations)
    return outcomes


def _repeats(outcome: Outcome) -> bool:
    """Whether an outcome tells of an earlier commit, which may have failed after it was visible.

    Such news must not go out before that commit is durable, so a batch of nothing else writes
    something: its own commit, once durable, covers all earlier ones.
    """
    if isinstance(outcome, LedgerError):
        return isinstance(outcome, Duplicate | HoldNotOpen)
    return outcome.replayed


def _pass_by(when: str, operations: Sequence[AnyInternal]) -> None:
    failpoint.reach(f"{when}_commit")
    for kind in sorted({type(operation).__name__.lower() for operation in operations}):
        failpoint.reach(f"{when}_{kind}_commit")
