"""Proxies: whose word for a client's address is believed.

Behind a proxy every connection comes from it, and the throttle of wrong keys would take all clients
for one. A header that anybody can send is no evidence, so only the networks that the operator names
are believed, from the nearest hop outwards, up to the first address that is none of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network

from avocado.gateway.exchange import Exchange

MAX_HOPS = 20


class Proxies:
    """The networks (``10.0.0.0/8``) or addresses of our own proxies; falsy where there are none."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Raises ValueError for what is no network."""
        self._networks = [ip_network(each) for each in networks]
        self._ours = lru_cache(maxsize=4096)(self._is_ours)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client(self, exchange: Exchange) -> str:
        """The address of the client behind our proxies, or of the one that claims to be one."""
        address = exchange.address
        named = exchange.headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        for hop in reversed(named[-MAX_HOPS:]):
            if not self._ours(address):
                break
            address = _bare(hop.strip()) or address
        return address

    def _is_ours(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


def _bare(hop: str) -> str | None:
    """A hop without port and brackets; None where it is no address."""
    host = hop[1:].partition("]")[0] if hop.startswith("[") else hop
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ip_address(host))
    except ValueError:
        return None
