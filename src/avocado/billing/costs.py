"""Costs: what engines and training cost the seller, as documents on the ledger's record.

An engine has a price per hour with dates (document ``cost/engine/<name>``); training has one price
per hour for all runs and a number of months over which a run is written off (``cost/training``).
A change is a new revision that keeps the older prices with their dates, so a statement of last
spring is what it was. Pure but for ``file_*``, which put a document on record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Literal

import msgspec

from avocado.errors import Refused
from avocado.ledger.operation import AnyOperation, AnyResult, File
from avocado.ledger.reader import Reader
from avocado.terms.money import ceil_div

KIND: Final = "cost"
TRAINING: Final = "cost/training"
_ENGINE: Final = "cost/engine/"
HOUR: Final = 3600
MONTHS: Final = 12
"""Over which a run is written off where nobody says otherwise."""

Do = Callable[[AnyOperation], AnyResult]


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``machines`` at ``per_hour`` nano-units each, on the days ``since`` ≤ day < ``until``."""

    since: str
    per_hour: int
    until: str | None = None
    machines: int = 1


class EngineCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What keeps ``releases`` (ids; none named: all) served, every hour of its days, used or
    not."""

    name: str
    currency: str
    rates: tuple[Rate, ...]
    releases: tuple[str, ...] = ()


class TrainingCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an hour of training costs; each run is written off in ``months`` equal parts."""

    currency: str
    rates: tuple[Rate, ...]
    months: int = MONTHS


@dataclass(frozen=True, slots=True)
class Run:
    """A training run as its checkpoint has it. ``made`` and ``seconds`` of its steps; ``nanos``
    what it was measured to cost, where its recipe named a price. ``releases`` came of it."""

    name: str
    made: int
    seconds: float
    releases: tuple[str, ...]
    machines: int = 1
    nanos: int | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What something cost in one month, nano-units. ``releases``: whose cost it is, None for that
    of everything that was served. ``basis`` says in words how it was reckoned."""

    kind: Literal["engine", "training"]
    name: str
    currency: str
    nanos: int
    releases: tuple[str, ...] | None
    basis: str
    hours: float = 0.0
    """Of machines."""
    part: int = 0
    """Of a run that is written off: the ``part``-th of ``parts`` months; 0 for an engine."""
    parts: int = 0


# -- a month ---------------------------------------------------------------------------------------


def month_bounds(month: str) -> tuple[int, int]:
    """First second of a month such as ``2026-11`` and of the next, UTC. Raises ValueError."""
    first = date.fromisoformat(f"{month}-01")
    after = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return _seconds(first), _seconds(after)


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _overlap(rate: Rate, begin: int, end: int) -> int:
    """Seconds of a span on which a rate holds."""
    since = _seconds(date.fromisoformat(rate.since))
    until = end if rate.until is None else _seconds(date.fromisoformat(rate.until))
    return max(0, min(end, until) - max(begin, since))


def engine_month(engine: EngineCost, month: str, now: int) -> Cost:
    """What an engine costs in a month: hours × machines × price, rounded up once. Of a month that
    is not over, the part until ``now`` (seconds since 1970)."""
    begin, end = month_bounds(month)
    end = max(begin, min(end, now))
    worth = hours = 0
    for rate in engine.rates:
        seconds = _overlap(rate, begin, end)
        worth += seconds * rate.machines * rate.per_hour
        hours += seconds * rate.machines
    basis = f"{hours / HOUR:,.1f} machine hours"
    named = engine.releases or None
    cost = ceil_div(worth, HOUR)
    return Cost("engine", engine.name, engine.currency, cost, named, basis, hours / HOUR)


def rate_on(rates: Sequence[Rate], at: int) -> Rate | None:
    """The rate in force at a second; None where there is none."""
    return next((rate for rate in rates if _overlap(rate, at, at + 1)), None)


def run_cost(run: Run, training: TrainingCost | None) -> tuple[int, str, str] | None:
    """(nano-units, currency, in words) of a whole run: what it was measured to cost, else hours ×
    machines × the price of the day on which it ended; None where no price is known."""
    hours = run.seconds * run.machines / HOUR
    if run.nanos is not None and run.currency is not None:
        return run.nanos, run.currency, f"{hours:,.2f} hours, at the price of its recipe"
    rate = rate_on(training.rates, run.made) if training else None
    if training is None or rate is None:
        return None
    worth = int(run.seconds * 1000) * run.machines * rate.per_hour
    return ceil_div(worth, 1000 * HOUR), training.currency, f"{hours:,.2f} hours of training"


def training_month(run: Run, training: TrainingCost | None, month: str) -> Cost | None:
    """A run's share of a month: a ``months``-th of its cost, from the month in which it ended on.
    The parts sum to the whole. None before, after, and for a run that led to no release."""
    found = run_cost(run, training)
    if found is None or not run.releases:
        return None
    whole, currency, words = found
    count = training.months if training else MONTHS
    made = datetime.fromtimestamp(run.made, UTC)
    first = date.fromisoformat(f"{month}-01")
    index = 12 * (first.year - made.year) + first.month - made.month
    if not 0 <= index < count:
        return None
    part = whole * (index + 1) // count - whole * index // count
    basis = f"{words}, part {index + 1} of {count}"
    hours = run.seconds * run.machines / HOUR
    return Cost("training", run.name, currency, part, run.releases, basis, hours, index + 1, count)


def month_costs(
    engines: Sequence[EngineCost],
    training: TrainingCost | None,
    runs: Sequence[Run],
    month: str,
    now: int,
) -> list[Cost]:
    """Everything that a month cost; what cost nothing is left out."""
    found: list[Cost | None] = [engine_month(engine, month, now) for engine in engines]
    found += [training_month(run, training, month) for run in runs]
    return [cost for cost in found if cost is not None and cost.nanos]


# -- on record -------------------------------------------------------------------------------------


def engine_costs(reader: Reader) -> list[EngineCost]:
    """Every engine whose price is on record, in the order in which they were first named."""
    return list(_engines(reader))


def _engines(reader: Reader) -> Iterator[EngineCost]:
    for document in reader.documents(KIND):
        if document.id.startswith(_ENGINE):
            yield msgspec.convert(document.content, EngineCost)


def training_cost(reader: Reader) -> TrainingCost | None:
    document = reader.document(TRAINING)
    return None if document is None else msgspec.convert(document.content, TrainingCost)


def add_rate(rates: Sequence[Rate], new: Rate) -> tuple[Rate, ...]:
    """``rates`` with a new one from its first day on: the one before ends there.

    Raises:
        Refused: a later or the same day has a price already, or the days are none or backwards.
    """
    try:
        begins = date.fromisoformat(new.since)
        ends = None if new.until is None else date.fromisoformat(new.until)
    except ValueError:
        raise Refused(f"{new.since} or {new.until} is no date such as 2026-11-01") from None
    if ends is not None and ends <= begins:
        raise Refused(f"a price that begins on {new.since} cannot end on {new.until}")
    if new.per_hour < 0 or not 1 <= new.machines <= 100_000:
        raise Refused("a price per hour is not negative, and there is at least one machine")
    if rates and rates[-1].since >= new.since:
        raise Refused(
            f"there is a price from {rates[-1].since} on already: a new one begins on a later day"
        )
    kept = list(rates)
    if kept and (kept[-1].until is None or kept[-1].until > new.since):
        kept[-1] = msgspec.structs.replace(kept[-1], until=new.since)
    return (*kept, new)


def price_engine(
    reader: Reader,
    do: Do,
    name: str,
    rate: Rate,
    currency: str,
    releases: Sequence[str] | None = None,
    actor: str = "",
) -> EngineCost:
    """Puts on record what an engine costs from a day on. ``releases`` None keeps those named.

    Raises:
        Refused: see :func:`add_rate`; or it is priced in another currency.
    """
    document = reader.document(_ENGINE + name)
    before = EngineCost(name, currency, ())
    if document is not None:
        before = msgspec.convert(document.content, EngineCost)
    if before.currency != currency:
        raise Refused(f"{name} is priced in {before.currency}, not in {currency}")
    named = before.releases if releases is None else tuple(releases)
    after = EngineCost(name, currency, add_rate(before.rates, rate), named)
    _file(do, _ENGINE + name, after, document.revision if document else 0, actor)
    return after


def price_training(
    reader: Reader, do: Do, rate: Rate, currency: str, months: int | None = None, actor: str = ""
) -> TrainingCost:
    """Puts on record what an hour of training costs from a day on, and over how many months a run
    is written off (for all runs).

    Raises:
        Refused: see :func:`add_rate`; or it is priced in another currency.
    """
    document = reader.document(TRAINING)
    before = TrainingCost(currency, ())
    if document is not None:
        before = msgspec.convert(document.content, TrainingCost)
    if before.currency != currency:
        raise Refused(f"training is priced in {before.currency}, not in {currency}")
    count = before.months if months is None else months
    if not 1 <= count <= 120:
        raise Refused("a run is written off over 1 to 120 months")
    after = TrainingCost(currency, add_rate(before.rates, rate), count)
    _file(do, TRAINING, after, document.revision if document else 0, actor)
    return after


def _file(do: Do, id_: str, content: msgspec.Struct, revision: int, actor: str) -> None:
    do(
        File(
            id=id_,
            kind=KIND,
            content=msgspec.to_builtins(content),
            revision=revision + 1,
            actor=actor,
        )
    )
