"""Invoice: what a customer used in a period, line by line. Pure over the ledger's charges.

A line is one release × price version × kind of token × price. Each charge was rounded once, when
it was settled; its split by kind sums to it (``PriceSheet.lines``), so the lines of an invoice sum
to the charges of the ledger exactly, and nothing is rounded here. Fees and refunds stand below
them, each with its sign. ``closing`` makes a document of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from avocado.ledger.reader import Charge
from avocado.terms.money import Money
from avocado.terms.price import KINDS, PriceSheet

if TYPE_CHECKING:
    from avocado.billing.period import Movement


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """``requests`` used ``tokens`` of one ``kind`` at ``price`` (nano-units a million): ``nanos``.

    ``price`` is what was paid: a version's batch and volume prices make lines of their own, and so
    do tokens that an allowance covered, at nothing. ``id`` names tenant, period and all that makes
    the line, so that it is the same whenever the invoice is drawn up.
    """

    id: str
    offer: str
    release: str
    price_version: str
    kind: str
    requests: int
    tokens: int
    price: int
    nanos: int


@dataclass(frozen=True, slots=True)
class OtherLine:
    """A fee (``item``), or refunds of earlier usage or fees (negative ``nanos``): ``count`` of them
    for one ``reason``."""

    id: str
    kind: Literal["fee", "refund"]
    offer: str
    release: str
    price_version: str
    item: str
    reason: str
    count: int
    nanos: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """``lines`` and ``others`` sum to ``total`` (nano-units), the ledger's for the period.

    ``since`` ≤ settled at < ``until``, both in ns. ``granted`` of the charges came from grants.
    """

    tenant: str
    currency: str
    since: int
    until: int
    lines: tuple[InvoiceLine, ...]
    requests: int
    total: int
    charged: int = 0
    granted: int = 0
    others: tuple[OtherLine, ...] = ()

    def to_json(self) -> dict[str, Any]:
        def shown(lines: Iterable[InvoiceLine | OtherLine]) -> list[dict[str, Any]]:
            return [
                {**asdict(line), "amount": Money(line.nanos, self.currency).decimal()}
                for line in lines
            ]

        return {
            **asdict(self),
            "amount": Money(self.total, self.currency).decimal(),
            "lines": shown(self.lines),
            "others": shown(self.others),
        }


_Key = tuple[str, str, str, str, int]
"""Offer, release, price version, kind of token, price."""


def line_id(tenant: str, since: int, until: int, key: Iterable[object]) -> str:
    """``line-`` and twelve hex digits over everything that makes a line what it is."""
    text = "\x1f".join(map(str, (tenant, since, until, *key)))
    return f"line-{sha256(text.encode()).hexdigest()[:12]}"


def draw_up(
    tenant: str,
    currency: str,
    charges: Iterable[Charge],
    sheets: Mapping[str, PriceSheet],
    since: int,
    until: int,
    moved: Movement | None = None,
) -> Invoice:
    """Adds up the ``charges`` of a period, and the fees and refunds in ``moved``. ``sheets`` holds
    each price version that the charges name. Charges are taken one by one and not kept.

    Raises:
        ValueError: a charge is not its usage at its price, or is of another currency: the ledger
            is damaged, and an invoice of it would be too.
    """
    sums: dict[_Key, list[int]] = {}
    charged = granted = requests = 0
    for charge in charges:
        if charge.currency != currency:
            raise ValueError(f"{charge.request} is in {charge.currency}, the book in {currency}")
        _add(sums, charge, sheets[charge.price_version])
        charged += charge.charge
        granted += charge.granted
        requests += 1
    made = tuple(
        InvoiceLine(
            line_id(tenant, since, until, key),
            *key[:4],
            sums[key][0],
            sums[key][1],
            key[4],
            sums[key][2],
        )
        for key in sorted(sums, key=lambda key: (*key[:3], KINDS.index(key[3]), key[4]))
    )
    others = () if moved is None else _others(tenant, since, until, moved)
    total = charged + sum(line.nanos for line in others)
    return Invoice(tenant, currency, since, until, made, requests, total, charged, granted, others)


def _add(sums: dict[_Key, list[int]], charge: Charge, sheet: PriceSheet) -> None:
    lines = sheet.lines(charge.usage, charge.batch, charge.volume, charge.covered)
    if sum(line.nanos for line in lines) != charge.charge:
        raise ValueError(f"the charge of {charge.request} is not its usage at its price")
    for line in lines:
        key = (charge.offer, charge.release, charge.price_version, line.kind, line.price)
        summed = sums.setdefault(key, [0, 0, 0])
        for place, value in enumerate((1, line.tokens, line.nanos)):
            summed[place] += value


def _others(tenant: str, since: int, until: int, moved: Movement) -> tuple[OtherLine, ...]:
    made = []
    for kind, sums, sign in (("fee", moved.fees, 1), ("refund", moved.refunds, -1)):
        for each in sums:
            sold = each.sold
            key = (kind, sold.offer, sold.release, sold.price_version, sold.item, each.reason)
            name = line_id(tenant, since, until, key)
            nanos = sign * each.nanos
            made.append(OtherLine(name, *key, each.count, nanos))  # type: ignore[arg-type]
    return tuple(made)
