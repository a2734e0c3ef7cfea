"""Refused: the product's one way of saying no. The command line prints each reason and exits 1."""

from __future__ import annotations


class Refused(Exception):
    """Something that the product will not do, with every reason, each one clear sentence."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons

    word = "refused"
    """What the command line calls it."""


class Undecided(Refused):
    """Too little is known to say yes or no, so it is not done; the reasons say what would tell."""

    word = "undecided"
