"""Proof: the ledger's ten invariants, and every stored file, checked on one button.

It runs in a thread of its own with a reader of its own, one at a time in a process, and a page
that looks in again shows how far it is. A broken invariant names the first journal entry.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avocado.console.operator.acting import record
from avocado.console.operator.doors import DOORS
from avocado.console.page import Nav, Pages, Redirect, Reply, Values, Visit
from avocado.errors import Refused
from avocado.ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from avocado.ledger.proof import Check
    from avocado.workspace import Workspace

PAGES = Pages()
EVERY = 2000
"""Journal entries between two looks at how far it is."""


@dataclass(frozen=True)
class State:
    """How far a proof is. Times in ns; ``head`` is the journal's length when it began."""

    stage: Literal["ledger", "files", "done", "failed"] = "ledger"
    who: str = ""
    deep: bool = False
    began: int = 0
    ended: int | None = None
    entries: int = 0
    head: int = 0
    checks: tuple[Check, ...] = ()
    files: int = 0
    signatures: int = 0
    wrong: tuple[str, ...] = ()
    error: str = ""

    @property
    def running(self) -> bool:
        return self.stage in ("ledger", "files")

    @property
    def share(self) -> float:
        return min(1.0, self.entries / self.head) if self.head else 0.0

    @property
    def fine(self) -> bool:
        return self.stage == "done" and not self.wrong and all(each.ok for each in self.checks)


@dataclass
class Desk:
    """The proof of one workspace that runs, or ran last, in this process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    state: State | None = None


_DESKS: dict[Path, Desk] = {}
_GUARD = threading.Lock()


def desk_of(workspace: Workspace) -> Desk:
    with _GUARD:
        return _DESKS.setdefault(workspace.folder, Desk())


def begin(workspace: Workspace, who: str, deep: bool) -> threading.Thread | None:
    """Starts a proof; None where one runs already."""
    desk = desk_of(workspace)
    with desk.lock:
        if desk.state is not None and desk.state.running:
            return None
        desk.state = State(who=who, deep=deep, began=time.time_ns())
    thread = threading.Thread(target=_run, args=(workspace, desk), name="proof", daemon=True)
    thread.start()
    return thread


def _run(workspace: Workspace, desk: Desk) -> None:
    def note(**facts: Any) -> None:
        with desk.lock:
            assert desk.state is not None
            desk.state = replace(desk.state, **facts)

    try:
        _prove(workspace, desk, note)
        from avocado.cli.trace import look_through

        note(stage="files")
        found = look_through(workspace)
        note(
            stage="done",
            files=found.files,
            signatures=found.signatures,
            wrong=tuple(found.wrong),
            ended=time.time_ns(),
        )
    except (LedgerError, Refused) as error:
        reasons = error.reasons if isinstance(error, Refused) else (str(error),)
        note(stage="failed", error="; ".join(reasons), ended=time.time_ns())
    except Exception as error:
        note(stage="failed", error=repr(error), ended=time.time_ns())
        raise


def _prove(workspace: Workspace, desk: Desk, note: Any) -> None:
    from avocado.ledger.ledger import is_postgres
    from avocado.ledger.proof import prove
    from avocado.ledger.reader import Reader, open_reader

    assert desk.state is not None
    with open_reader(workspace.ledger) as reader:
        note(head=reader.head()[0])

        def rows(sql: str, values: Sequence[object]) -> Iterable[Any]:
            found = reader.rows(sql, values)
            if not sql.startswith("SELECT seq, at, kind, id, tenant, body, hash FROM journal"):
                return found
            return _counted(found, note)

        watched = Reader(
            rows,
            begin="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            if is_postgres(workspace.ledger)
            else "BEGIN",
        )
        note(checks=tuple(prove(watched, time.time_ns(), desk.state.deep)))


def _counted(rows: Iterable[Any], note: Any) -> Iterator[Any]:
    """The rows, telling every now and then how many there were; lets other threads run."""
    number = 0
    for number, row in enumerate(rows, 1):
        if number % EVERY == 0:
            note(entries=number)
            time.sleep(0)
        yield row
    note(entries=number)


@PAGES.show(
    "/operator/proof",
    roles=DOORS["proof"],
    template="operator/proof.html",
    nav=Nav("op.proof", "shield", 420, "op.group_trust"),
)
def proof(visit: Visit) -> Values:
    seq, digest = visit.reader.head()
    return {"state": desk_of(visit.console.workspace).state, "head": seq, "digest": digest}


@PAGES.live(
    "/operator/proof/live", roles=DOORS["proof"], template="operator/proof_live.html", every=1.0
)
def proof_live(visit: Visit) -> Values:
    return {"state": desk_of(visit.console.workspace).state}


@PAGES.act("/operator/proof", roles=DOORS["proof"], again=proof)
def start(visit: Visit) -> Reply:
    deep = visit.form.get("deep") == "yes"
    if begin(visit.console.workspace, visit.who.email, deep) is None:
        return Redirect("/operator/proof", visit.t("op_proof.runs_already"), "plain")
    with visit.writing() as do:
        record(visit, do, "proof", "ledger", deep=int(deep))
    return Redirect("/operator/proof")
