"""The attestations of a workspace, on disk: a log that is only ever appended to.

One line each, written whole under a lock and synced before it is acknowledged. What the lines mean
is for ``terms.attestation``.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from avocado.terms.attestation import Attestation, Statement, line, parse

NAME: Final = "attestations.jsonl"


@dataclass(frozen=True)
class Log:
    """The log at ``path``; where there is none yet, nothing is attested."""

    path: Path

    def read(self) -> tuple[Attestation, ...]:
        """Every attestation, in order.

        Raises:
            Refused: a line was changed; the sentence names it.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        return parse(data, self.path.name)

    def append(self, statement: Statement) -> Attestation:
        """Adds a statement that :func:`terms.attestation.check` has passed.

        Raises:
            Refused: the log is broken already.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, "r+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            data = handle.read()
            made, text = line(parse(data, self.path.name), statement)
            handle.seek(data.rfind(b"\n") + 1)
            handle.truncate()  # half a line, of a writer that died before it could acknowledge it
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        return made
