"""The playground's own keys: in this process's memory alone, one a customer, for an hour."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from avocado.console.page import Visit

LIFE: Final = 3600 * 1_000_000_000
SPARE: Final = LIFE // 6
"""A key that ends sooner is replaced: an answer may take a while."""


@dataclass
class Held:
    """A key in this process's memory."""

    text: str = field(repr=False)
    ends: int


class KeyBox:
    """The playground's keys, one a customer."""

    def __init__(self) -> None:
        self._keys: dict[str, Held] = {}
        self._lock = threading.Lock()

    def key_for(self, visit: Visit) -> str:
        """The customer's, made now if there is none that lasts."""
        from avocado.console.customer import keyring

        with self._lock:
            held = self._keys.get(visit.tenant)
            if held is None or held.ends - visit.now < SPARE:
                ends = visit.now + LIFE
                bounds = keyring.Bounds(scopes=("inference",))
                text = keyring.create(visit, keyring.INTERNAL, ends, bounds, internal=True)
                held = self._keys[visit.tenant] = Held(text, ends)
            return held.text

    def forget(self, tenant: str) -> None:
        with self._lock:
            self._keys.pop(tenant, None)
