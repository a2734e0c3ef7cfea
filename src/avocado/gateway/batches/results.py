"""Results: the output and the error file of a batch, written in the order of its lines.

They are written again from the start where a process died over them: the same lines give the same
bytes, so nothing has to be remembered.
"""

from __future__ import annotations

import time
from typing import Final

from avocado.gateway.batches import stored_files as files
from avocado.gateway.batches import stored_lines
from avocado.gateway.batches.rows import CHUNK, UPLOADING, BatchRow, FileRow, result_id
from avocado.gateway.batches.store import Store
from avocado.gateway.batches.wire import result_line

TOGETHER: Final = 16
"""Lines that are in memory at once; an answer has megabytes at most."""


async def write_results(kept: Store, batch: BatchRow, kind: str, state: str) -> str:
    """Writes the file of all lines in ``state`` and returns its id."""
    now = time.time_ns()
    name = f"{batch.id}_{kind}.jsonl"
    file = FileRow(
        result_id(batch.id, kind),
        batch.tenant,
        "batch_output",
        name,
        0,
        now,
        now // 10**9,
        2**62,
        UPLOADING,
    )
    await kept.do(files.add_file, file)
    rest, place, after = bytearray(), 0, 0
    while lines := await kept.look(
        stored_lines.lines_of, batch.id, state, after, TOGETHER, bodies=True
    ):
        after = lines[-1].line
        for line in lines:
            rest += result_line(line)
        while len(rest) >= CHUNK:
            await _append(kept, file, place, bytes(rest[:CHUNK]))
            del rest[:CHUNK]
            place += 1
    if rest:
        await _append(kept, file, place, bytes(rest))
    expires = file.created + batch.keep
    await kept.do(files.finish_file, file.id, "batch_output", name, expires)
    return file.id


async def _append(kept: Store, file: FileRow, place: int, chunk: bytes) -> None:
    await kept.do(files.append, file.id, place, chunk)
