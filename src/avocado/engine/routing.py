"""Which replica serves a request: the one where its conversation is cached, unless that is busy.

Pure. Each conversation ranks all replicas by a hash (rendezvous hashing, Thaler and Ravishankar
1998), so that a replica that comes or goes moves only the conversations that it serves. The first
of the ranking takes the request while it has at most a quarter more than its share of what is
running (consistent hashing with bounded loads, Mirrokni et al. 2018); else the least busy one does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

SLACK: Final = 1.25
"""How much of an even share a replica may have before conversations leave it."""


def conversation(messages: Sequence[Mapping[str, Any]], cache_salt: str) -> str:
    """What all turns of a conversation have in common: all up to the first word of the user, and
    whose cache it is."""
    opening = []
    for message in messages:
        opening.append(message)
        if message.get("role") == "user":
            break
    text = json.dumps([cache_salt, opening], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def choose(loads: Mapping[str, int], key: str) -> str:
    """``loads``: running requests of each replica that may be chosen, at least one."""
    if len(loads) == 1:
        return next(iter(loads))
    share = SLACK * (sum(loads.values()) + 1) / len(loads)
    favourite = max(loads, key=lambda name: _weight(name, key))
    if loads[favourite] < share:
        return favourite
    return min(loads, key=lambda name: (loads[name], -_weight(name, key)))


def _weight(name: str, key: str) -> int:
    digest = hashlib.blake2b(f"{key} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
