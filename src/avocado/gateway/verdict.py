"""The verdict: how a generation ended, and so what is charged and what the client is told. Pure.

A request ends in exactly one way. The rules: what was delivered, or generated for a client that
left, is settled; what nobody received is voided; usage that cannot be believed keeps the hold, and
the ledger closes it at its last progress when its time is up.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from avocado.engine.engine import Finish
from avocado.gateway.errors import ApiError, bad_request, of_engine, unavailable
from avocado.terms.usage import Usage, UsageError


class Stop(enum.Enum):
    """Why we ended a generation ourselves."""

    DISCONNECT = "disconnect"
    STALLED = "stalled"
    HUNG = "engine_timeout"
    OVERTIME = "overtime"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known when a generation is over. ``delivered`` says that the client has text."""

    usage: Usage
    finish: Finish | None = None
    failure: Exception | None = None
    stop: Stop | None = None
    delivered: bool = False


@dataclass(frozen=True, slots=True)
class Charge:
    """Settle ``usage``. ``finish`` is what the ledger notes; ``error`` is what the stream ends
    with, None for a good answer."""

    usage: Usage
    finish: str
    error: ApiError | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Void the hold, and answer ``error``."""

    reason: str
    error: ApiError


@dataclass(frozen=True, slots=True)
class Keep:
    """Touch nothing: the hold stays until the ledger closes it. Answer ``error``."""

    reason: str
    error: ApiError


Verdict = Charge | Release | Keep


def judge(ending: Ending) -> Verdict:
    """What becomes of the hold."""
    if ending.finish is not None:
        return Charge(ending.finish.usage, ending.finish.reason)
    if isinstance(ending.failure, UsageError):
        return Keep("usage_not_believed", _impossible_usage())
    if ending.stop in (Stop.DISCONNECT, Stop.STALLED):
        # Nobody is there to be told. Before the first token nothing was generated for them.
        if ending.usage.completion:
            return Charge(ending.usage, ending.stop.value, _hung_up())
        return Release(ending.stop.value, _hung_up())
    error = _stopped(ending.stop) if ending.stop else of_engine(ending.failure or _silent())
    reason = ending.stop.value if ending.stop else "engine_error"
    if ending.delivered:
        return Charge(ending.usage, reason, error)
    return Release(reason, error)


def _silent() -> Exception:
    return RuntimeError("the engine ended a generation without saying how")


def _hung_up() -> ApiError:
    return bad_request("The client hung up", code="client_closed_request")


def _impossible_usage() -> ApiError:
    return ApiError(
        502,
        "The engine reported token counts that cannot be; the request is flagged",
        type="server_error",
        code="engine_usage",
    )


def _stopped(stop: Stop) -> ApiError:
    if stop is Stop.SHUTDOWN:
        return unavailable("The server is shutting down; try again", "shutting_down")
    said = "produced nothing for too long" if stop is Stop.HUNG else "took too long"
    return ApiError(504, f"The engine {said} and was stopped", type="server_error", code=stop.value)
