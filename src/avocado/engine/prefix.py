"""Prompts that begin alike are computed once: the keys and values of whole pieces are kept.

Only whole pieces of a prompt, computed as every prompt is, from its beginning: what is read back is
bit for bit what would be computed, so a cache changes no answer. A piece is known by all tokens up
to its end and by whose it is; nobody is served from another's prompts, nor can tell from the time
that they were there. Belongs to the engine's thread. Knows nothing about models.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from avocado.engine.kv_cache import Pair

Piece = list[Pair]
"""Keys and values of each layer, ``[1, heads, piece, dim]``."""


class Prefixes:
    """The pieces used last, at most ``room`` tokens of them; a piece is ``size`` tokens."""

    def __init__(self, size: int, room: int) -> None:
        self._size = size
        self._most = room // size
        self._pieces: OrderedDict[bytes, Piece] = OrderedDict()

    def find(self, ids: Sequence[int], salt: str) -> list[Piece]:
        """The leading pieces of ``ids`` that are kept; never all of it, for a prompt's last token
        has to be computed."""
        found: list[Piece] = []
        for name in self._names(ids, salt):
            piece = self._pieces.get(name)
            if piece is None:
                break
            self._pieces.move_to_end(name)
            found.append(piece)
        return found

    def keep(self, ids: Sequence[int], salt: str, pieces: Sequence[Piece]) -> None:
        """``pieces`` are the leading ones of ``ids``, found or new."""
        for name, piece in zip(self._names(ids, salt), pieces, strict=False):
            self._pieces[name] = piece
            self._pieces.move_to_end(name)
        while len(self._pieces) > self._most:
            self._pieces.popitem(last=False)

    def clear(self) -> None:
        self._pieces.clear()

    def _names(self, ids: Sequence[int], salt: str) -> list[bytes]:
        """A name for each whole piece that is not the end of ``ids``; none without a salt."""
        if not salt:
            return []
        chain = blake2b(salt.encode(errors="surrogatepass"), digest_size=32)
        names = []
        for start in range(0, len(ids) - self._size, self._size):
            chain.update(array("q", ids[start : start + self._size]).tobytes())
            names.append(chain.digest())
        return names
