"""Faults below SQLite: a disk in memory, as an APSW VFS, that tears, fills up, fails and forgets.

A write reaches the disk's cache; only a sync makes it durable. When the power goes, each unsynced
write is kept, lost or cut at a sector by chance. After every fault the book is opened from what the
disk still has: all ten invariants must hold and everything that was acknowledged must be there.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest

from avocado.ledger import batch, proof
from avocado.ledger import operation as o
from avocado.ledger.book import AnyInternal, Close
from avocado.ledger.errors import LedgerError, LedgerUnavailable
from avocado.ledger.reader import Reader
from avocado.ledger.sqlite import SqliteStore
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

SECTOR = 512
SHEET = PriceSheet(200_000_000, 800_000_000)
AT = 1_790_000_000_000_000_000
_names = itertools.count()


@dataclass
class File:
    """What readers see, what is durable, and the writes between the two."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)


def apply(data: bytearray, offset: int, piece: bytes | None) -> None:
    if piece is None:
        del data[offset:]
        return
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


class Disk(apsw.VFS):
    """Counts writes, truncations and syncs; at number ``fault_at`` it does what ``fault`` says."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.vfs_name = f"disk-{next(_names)}"
        self.files = {
            name: File(bytearray(data), bytearray(data)) for name, data in (files or {}).items()
        }
        self.count = 0
        self.syncs: list[int] = []
        self.fault = ""
        self.fault_at = -1
        self.kill_at = -1
        self.dead = False
        super().__init__(self.vfs_name, base="")

    def plan(self, fault: str, at: int, kill_at: int = -1) -> None:
        """``kill_at`` is when the power goes after a fault that the book lived through."""
        self.fault, self.fault_at, self.kill_at = fault, at, kill_at

    def strikes(self) -> str:
        """The fault of this operation, or nothing. A dead disk does nothing any more."""
        if self.dead:
            raise apsw.IOError("the power is off")
        self.count += 1
        if self.count == self.kill_at:
            self.die()
        due = self.count - self.fault_at
        if self.fault == "full":
            return "full" if 0 <= due < 40 else ""
        return self.fault if due == 0 else ""

    def die(self) -> None:
        self.dead = True
        raise apsw.IOError("the power went off")

    def after_power_cut(self, chance: random.Random) -> dict[str, bytes]:
        """What a new machine would find on the disk."""
        found = {}
        keep = chance.choice([0.0, 0.5, 1.0])
        for name, file in self.files.items():
            data = bytearray(file.durable)
            for offset, piece in file.pending:
                if chance.random() >= keep:
                    continue
                if piece is not None and chance.random() < 0.2:
                    piece = piece[: chance.randrange(0, len(piece) + 1, SECTOR) or None]
                apply(data, offset, piece)
            found[name] = bytes(data)
        return found

    # -- the VFS ---------------------------------------------------------------------------------

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        flags[1] = flags[0]
        label = Path(str(name.filename() if isinstance(name, apsw.URIFilename) else name)).name
        if label not in self.files and not flags[0] & apsw.SQLITE_OPEN_CREATE:
            raise apsw.CantOpenError(f"there is no {label}")
        return DiskFile(self, self.files.setdefault(label, File()))  # type: ignore[return-value]

    def xDelete(self, name: str, sync: bool) -> None:
        if self.strikes():
            self.die()
        self.files.pop(Path(name).name, None)

    def xAccess(self, name: str, flags: int) -> bool:
        return Path(name).name in self.files


class DiskFile:
    """An open file of a :class:`Disk`."""

    def __init__(self, disk: Disk, file: File) -> None:
        self.disk = disk
        self.file = file

    def xRead(self, amount: int, offset: int) -> bytes:
        if self.disk.dead:
            raise apsw.IOError("the power is off")
        return bytes(self.file.seen[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        data = bytes(data)
        fault = self.disk.strikes()
        if fault == "full":
            raise apsw.FullError("the disk is full")
        if fault == "write error":
            raise apsw.IOError("the write failed")
        if fault == "torn write":
            data = data[: max(1, len(data) // 2)]
        apply(self.file.seen, offset, data)
        self.file.pending.append((offset, data))
        if fault in ("kill", "torn write"):
            self.disk.die()

    def xTruncate(self, size: int) -> None:
        if self.disk.strikes() == "kill":
            self.disk.die()
        apply(self.file.seen, size, None)
        self.file.pending.append((size, None))

    def xSync(self, flags: int) -> None:
        fault = self.disk.strikes()
        self.disk.syncs.append(self.disk.count)
        if fault == "kill":
            self.disk.die()
        if fault in ("sync error", "write error", "full"):
            self.file.pending = []  # the kernel calls the pages clean, but they never arrived
            raise apsw.IOError("the sync failed")
        for offset, piece in self.file.pending:
            apply(self.file.durable, offset, piece)
        self.file.pending = []

    def xFileSize(self) -> int:
        return len(self.file.seen)

    def xClose(self) -> None: ...

    def xLock(self, level: int) -> None: ...

    def xUnlock(self, level: int) -> None: ...

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR

    def xDeviceCharacteristics(self) -> int:
        return 0


# -- the work --------------------------------------------------------------------------------------


def batches() -> Iterator[list[AnyInternal]]:
    """A small life of a book: customers, money, requests that end in every way."""
    yield [
        o.PublishPrice(terms=SHEET.terms()),
        *(o.OpenCustomer(tenant=f"t{n}", name="T") for n in range(3)),
        *(
            o.Deposit(id=f"d{n}", tenant=f"t{n}", amount=2_000_000, currency="USD")
            for n in range(3)
        ),
    ]
    for turn in range(4):
        ids = [f"r{turn}-{n}" for n in range(4)]
        yield [
            o.Hold(
                id=id_,
                tenant=f"t{n % 3}",
                offer="avocado-1",
                release="release-1",
                price_version=SHEET.version,
                prompt_tokens=100,
                max_tokens=500,
                idempotency_key=f"key-{id_}" if n == 0 else None,
            )
            for n, id_ in enumerate(ids)
        ]
        yield [o.Progress(hold=ids[2], usage=Usage(100, 7))]
        yield [
            o.Settle(hold=ids[0], usage=Usage(100, 50 * turn)),
            o.Settle(hold=ids[1], usage=Usage(100, 500)),
            o.Void(hold=ids[3], reason="failed"),
            o.Refund(id=f"back-{turn}", of=ids[1], reason="slow", amount=1000),
        ]


@dataclass
class Run:
    """One life of a book on one disk: what was acknowledged, in order."""

    disk: Disk
    folder: Path
    acknowledged: list[tuple[AnyInternal, batch.Outcome]] = field(default_factory=list)

    def open(self, epoch: str) -> SqliteStore:
        store = SqliteStore(self.folder / "book.db", epoch, AT, vfs=self.disk.vfs_name)
        store.checkpoint_pages = 30
        return store

    def live(self) -> None:
        """Works until the end, or until the power is gone."""
        with suppress(LedgerUnavailable):
            store = self._start()
            try:
                for operations in batches():
                    self._ask(store, operations)
            finally:
                store.close()

    def _start(self) -> SqliteStore:
        for attempt in range(60):
            try:
                return self.open(f"epoch-1-{attempt}")
            except LedgerUnavailable:
                if self.disk.dead:
                    raise
        raise LedgerUnavailable("the disk never came back")

    def _ask(self, store: SqliteStore, operations: list[AnyInternal]) -> None:
        for attempt in range(60):
            try:
                if attempt:
                    store.reopen()
                outcomes = batch.run(store, operations, AT)
                self.acknowledged += zip(operations, outcomes, strict=True)
                store.tidy()
            except LedgerUnavailable:
                if self.disk.dead:
                    raise
            else:
                return
        raise LedgerUnavailable("the disk never came back")


def survived(run: Run, chance: random.Random) -> list[str]:
    """What is wrong with the book that the next machine finds; nothing, we hope."""
    after = Run(Disk(run.disk.after_power_cut(chance)), run.folder)
    store = after.open("epoch-2")
    try:
        orphans = store.orphans()
        if orphans:
            batch.run(store, [Close(hold=hold, cause="recovered") for hold in orphans], AT)
        reader = Reader(store.rows)
        wrong = [str(check) for check in proof.prove(reader, AT, deep=True) if not check.ok]
        wrong += [
            f"lost: {operation}"
            for operation, outcome in run.acknowledged
            if not isinstance(outcome, LedgerError) and not _is_there(reader, operation, outcome)
        ]
        return wrong
    finally:
        store.close()


def _is_there(reader: Reader, operation: AnyInternal, outcome: Any) -> bool:
    if isinstance(outcome, o.Held):
        return reader.hold(outcome.hold) is not None
    if isinstance(outcome, o.Settled):
        row = reader.hold(outcome.hold)
        return row is not None and (row.state, row.charge) == ("settled", outcome.charge)
    if isinstance(outcome, o.Voided):
        row = reader.hold(outcome.hold)
        return row is not None and row.state == "voided"
    if isinstance(operation, o.Progress):
        row = reader.hold(operation.hold)
        return row is not None and row.completion >= operation.usage.completion
    record = reader.entry(outcome.seq)
    return record is not None


FAULTS = ("kill", "torn write", "write error", "full")


def _plan(folder: Path, every: int, seed: int) -> tuple[int, list[tuple[str, int]]]:
    """(disk operations in all, what to break): every sync, and every so-many-th operation."""
    run = Run(Disk(), folder)
    run.live()
    assert survived(run, random.Random(0)) == []
    plan = [("sync error", at) for at in run.disk.syncs for _ in range(3)]
    for at in range(1 + seed % every, run.disk.count, every):
        plan += [(fault, at) for fault in FAULTS]
    return run.disk.count, plan


def _strike(folder: Path, every: int, seed: int, say: Callable[[str], None] = print) -> int:
    operations, plan = _plan(folder, every, seed)
    for number, (fault, at) in enumerate(plan):
        chance = random.Random(f"{seed} {fault} {at} {number}")
        run = Run(Disk(), folder)
        run.disk.plan(fault, at, at + chance.randrange(1, 90))
        run.live()
        wrong = survived(run, chance)
        assert wrong == [], f"after {fault!r} at disk operation {at}, seed {seed}: {wrong[:3]}"
    say(f"{len(plan)} faults over {operations} disk operations, 0 violations, seed {seed}")
    return len(plan)


def test_fault_03_and_04_a_book_survives_its_disk(tmp_path: Path) -> None:
    assert _strike(tmp_path, every=5, seed=random.randrange(10**6)) >= 300


@pytest.mark.slow
def test_fault_03_and_04_a_book_survives_a_fault_at_every_disk_operation(tmp_path: Path) -> None:
    assert _strike(tmp_path, every=1, seed=random.randrange(10**6)) >= 1000


def test_a_disk_that_lies_about_syncs_would_be_caught(tmp_path: Path) -> None:
    """The test's own test: a disk that forgets synced writes must make it fail."""
    lost = 0
    for at in range(200, 420, 20):
        run = Run(Disk(), tmp_path)
        run.disk.plan("kill", at)
        run.live()
        for name, file in run.disk.files.items():
            if name.endswith("-wal"):
                del file.durable[len(file.durable) // 2 :]
                file.pending = []
        try:
            lost += bool(survived(run, random.Random(at)))
        except LedgerError:
            lost += 1
    assert lost > 0
