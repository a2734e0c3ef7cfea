"""Refused: the product's one way of saying no. The command line prints each reason and exits 1."""

from __future__ import annotations


class Refused(Exception):
    """Something that the product will not do, with every reason, each one clear sentence."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons
