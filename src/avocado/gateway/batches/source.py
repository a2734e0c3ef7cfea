"""Source: the input file of a batch, read line by line. Lines lie side by side and many in a chunk,
so the chunks that were read last are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from avocado.gateway.batches import stored_files
from avocado.gateway.batches.rows import CHUNK
from avocado.gateway.batches.store import Store

KEPT: Final = 4


class Source:
    """One file. For one reader at a time."""

    def __init__(self, kept: Store, file: str) -> None:
        self._store = kept
        self._file = file
        self._chunks: OrderedDict[int, bytes] = OrderedDict()

    async def read(self, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` on. Raises ShelfUnavailable."""
        first, last = start // CHUNK, (start + size - 1) // CHUNK
        whole = b"".join([await self._chunk(place) for place in range(first, last + 1)])
        return whole[start - first * CHUNK :][:size]

    async def _chunk(self, place: int) -> bytes:
        found = self._chunks.get(place)
        if found is None:
            found = await self._store.look(stored_files.read, self._file, place * CHUNK, CHUNK)
            self._chunks[place] = found
            if len(self._chunks) > KEPT:
                self._chunks.popitem(last=False)
        return found
