"""Lifetimes: who may know of an offer, from when until when, and what is said of its end.

Deprecation goes into headers (RFC 9745 ``Deprecation``, RFC 8594 ``Sunset``) and into
``/v1/models``. After its end a model is a 404 that names its successor. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from avocado.gateway.errors import ApiError, model_not_found
from avocado.gateway.keys import Caller
from avocado.release.offer import Offer

Headers = tuple[tuple[bytes, bytes], ...]


def sees(offer: Offer, caller: Caller, now: float) -> bool:
    """Whether ``offer`` is on the list that ``caller`` is shown at ``now`` (Unix seconds)."""
    admitted = offer.admits(caller.tenant, caller.plan)
    return admitted and offer.state(now) in ("sold", "deprecated")


def require_sold(offer: Offer, caller: Caller, now: float) -> None:
    """Raises:
    ApiError: 404, word for word as for a model that does not exist where the caller may not know
        of it or it is not sold yet; with its end and its successor where it is over.
    """
    state = offer.state(now)
    if not offer.admits(caller.tenant, caller.plan) or state == "ahead":
        raise model_not_found(offer.name)
    if state == "over":
        assert offer.ends is not None, "what is over has an end"
        advice = (
            f"use {offer.successor!r} instead"
            if offer.successor
            else "GET /v1/models lists what there is"
        )
        raise ApiError(
            404,
            f"The model {offer.name!r} is not sold any more since {_day(offer.ends)}; {advice}",
            code="model_not_found",
            param="model",
        )


def headers(offer: Offer, now: float) -> Headers:
    """What every answer of a model says of its end; nothing where none is set."""
    found: list[tuple[bytes, bytes]] = []
    if offer.deprecated is not None:
        found.append((b"deprecation", b"@%d" % offer.deprecated))
    if offer.ends is not None:
        ends = format_datetime(datetime.fromtimestamp(offer.ends, UTC), usegmt=True)
        found.append((b"sunset", ends.encode()))
    if found and offer.successor is not None:
        link = f'</v1/models/{offer.successor}>; rel="successor-version"'
        found.append((b"link", link.encode()))
    if offer.state(now) == "deprecated":
        found.append((b"x-avocado-warning", warning(offer).encode()))
    return tuple(found)


def shown(offer: Offer, now: float) -> dict[str, Any]:
    """The field ``deprecation`` of ``/v1/models``, where an end is set."""
    if offer.deprecated is None and offer.ends is None:
        return {}
    return {
        "deprecation": {
            "deprecated": offer.deprecated,
            "ends": offer.ends,
            "successor": offer.successor,
            "warning": warning(offer) if offer.state(now) == "deprecated" else None,
        }
    }


def warning(offer: Offer) -> str:
    """One sentence for a person, in ASCII, as a header carries it."""
    until = f" and is sold until {_day(offer.ends)}" if offer.ends is not None else ""
    instead = f"; use {offer.successor}" if offer.successor else ""
    return f"{offer.name} is deprecated{until}{instead}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
