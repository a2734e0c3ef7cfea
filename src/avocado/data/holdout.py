"""Holdout: which rows are not learnt, so that loss on them says something. Pure.

Whole groups are held out, never a part of one: a row that repeats another, or that belongs to the
same customer or document, would tell the answer.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from avocado.errors import Refused


def chosen(
    groups: Sequence[int], keys: Sequence[int], general: Sequence[bool], share: float
) -> frozenset[int]:
    """The groups to hold out: as close to ``share`` of the rows as whole groups come, not above.

    ``groups[i]`` is the group of row ``i``, by the number of its first row, ``keys`` hashes of the
    rows' groups or content, which alone decide the order in which groups are chosen. A group with a
    row of ``general`` data is never chosen, and its rows are not counted.

    Raises:
        Refused: no group is small enough.
    """
    kept = {group for group, is_general in zip(groups, general, strict=True) if is_general}
    sizes = Counter(group for group in groups if group not in kept)
    rows = sizes.total()
    wanted = min(max(1, round(share * rows)), rows - 1)
    held: set[int] = set()
    left = wanted
    for group in sorted(sizes, key=lambda each: (_order(keys[each]), each)):
        if sizes[group] <= left:
            held.add(group)
            left -= sizes[group]
    if not held:
        smallest = f"the smallest group has {min(sizes.values()):,}" if sizes else "there are none"
        raise Refused(
            f"holdout = {share} of {rows:,} rows needs a group of at most {max(wanted, 0):,} rows: "
            f"{smallest}"
        )
    return frozenset(held)


def _order(key: int) -> bytes:
    """Hashed once more: the same key decides which rows a weight leaves out."""
    return hashlib.sha256(b"held out" + key.to_bytes(8, "big")).digest()
