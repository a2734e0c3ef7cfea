"""An invoice's lines sum to the ledger's charges, to the last nano-unit, whatever was used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.billing.invoice import draw_up
from avocado.ledger.reader import Charge
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

SHEETS = {
    sheet.version: sheet
    for sheet in (
        PriceSheet(200_000_000, 800_000_000),
        PriceSheet(333, 1_000_001, cached=7, reasoning=999, batch=500_000),
        PriceSheet(0, 0),
        PriceSheet(10_000_003, 70_000_001, tiers=((1_000, 900_000), (5_000, 777_777))),
    )
}


@st.composite
def charges(draw: st.DrawFn) -> Charge:
    prompt, completion = draw(st.integers(0, 10_000)), draw(st.integers(0, 10_000))
    usage = Usage(
        prompt,
        completion,
        cached=draw(st.integers(0, prompt)),
        reasoning=draw(st.integers(0, completion)),
    )
    version = draw(st.sampled_from(sorted(SHEETS)))
    batch, volume = draw(st.booleans()), draw(st.integers(0, 10_000))
    return Charge(
        seq=1,
        at=1,
        request=draw(st.uuids().map(str)),
        tenant="acme",
        key_id=None,
        offer=draw(st.sampled_from(["a", "b"])),
        release="release-1",
        price_version=version,
        currency="USD",
        usage=usage,
        charge=SHEETS[version].charge(usage, batch, volume).nanos,
        refunded=0,
        finish="stop",
        batch=batch,
        volume=volume,
    )


@given(st.lists(charges(), max_size=20))
def test_lines_sum_to_the_charges_exactly(book: list[Charge]) -> None:
    invoice = draw_up("acme", "USD", book, SHEETS, 0, 10)
    assert sum(line.nanos for line in invoice.lines) == invoice.total
    assert invoice.total == sum(charge.charge for charge in book)
    assert sum(line.tokens for line in invoice.lines) == sum(each.usage.total for each in book)
    assert len({line.id for line in invoice.lines}) == len(invoice.lines)
    again = draw_up("acme", "USD", reversed(book), SHEETS, 0, 10)
    assert {line.id for line in again.lines} == {line.id for line in invoice.lines}


@given(charges())
def test_a_damaged_charge_makes_no_invoice(charge: Charge) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="not its usage"):
        draw_up("acme", "USD", [replace(charge, charge=charge.charge + 1)], SHEETS, 0, 10)
    with pytest.raises(ValueError, match="EUR"):
        draw_up("acme", "EUR", [charge], SHEETS, 0, 10)
