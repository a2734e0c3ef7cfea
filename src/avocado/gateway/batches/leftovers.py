"""What nobody needs any more: files whose time is over, uploads that were given up, and
lines of batches that have ended. It goes a little at a time, so that nobody waits for it.
"""

from __future__ import annotations

from avocado.gateway.batches.rows import GONE, READY, UPLOADING
from avocado.gateway.batches.store import LIVING
from avocado.gateway.shelf import Database

# What is put into SQL below are names of columns and states of ours, never what a client sent.
# ruff: noqa: S608


def tidy(database: Database, now: int, abandoned: int, most: int = 40) -> bool:
    """Deletes a little of what nobody needs any more; whether there may be more of it.

    ``now`` is in Unix seconds; an upload that began before ``abandoned`` (ns) is given up.
    """
    database.run(
        "UPDATE gateway_file SET state = ? WHERE state = ? AND at < ? AND id NOT IN"
        f" (SELECT output FROM gateway_batch WHERE status IN ({LIVING}) AND output IS NOT NULL)"
        " AND id NOT IN"
        f" (SELECT error FROM gateway_batch WHERE status IN ({LIVING}) AND error IS NOT NULL)",
        (GONE, UPLOADING, abandoned),
    )
    database.run(
        "UPDATE gateway_file SET state = ? WHERE state = ? AND expires <= ? AND id NOT IN"
        f" (SELECT input FROM gateway_batch WHERE status IN ({LIVING}))",
        (GONE, READY, now),
    )
    chunks = database.run(
        "SELECT file, place FROM gateway_chunk WHERE file IN"
        " (SELECT id FROM gateway_file WHERE state = ?) LIMIT ?",
        (GONE, most),
    )
    for file, place in chunks:
        database.run("DELETE FROM gateway_chunk WHERE file = ? AND place = ?", (file, place))
    lines = database.run(
        "SELECT batch, line FROM gateway_line WHERE batch IN"
        f" (SELECT id FROM gateway_batch WHERE status NOT IN ({LIVING})) LIMIT ?",
        (25 * most,),
    )
    for batch, line in lines:
        database.run("DELETE FROM gateway_line WHERE batch = ? AND line = ?", (batch, line))
    if not chunks:
        database.run("DELETE FROM gateway_file WHERE state = ?", (GONE,))
    return len(chunks) == most or len(lines) == 25 * most
