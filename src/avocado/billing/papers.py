"""Papers: the invoice of each top-up and the credit note of each refund, made up for if missing.

Money and paper are two steps. The first is the ledger's and is never waited for; whatever a crash
leaves out of the second, the next look finds from what is on record.
"""

from __future__ import annotations

from typing import Protocol

from avocado.billing import payment as p
from avocado.billing.invoices import CREDIT_NOTE, TaxSum
from avocado.billing.record import Refusals, read
from avocado.billing.topups import topup_id
from avocado.ledger import entry as e
from avocado.ledger.reader import Reader


class Papers(Protocol):
    """Who writes them; asking twice gives the same paper. May raise Refused or LedgerError."""

    def invoice(self, tenant: str, deposit: str, taxes: tuple[TaxSum, ...] | None) -> object:
        """The invoice of a top-up. ``taxes`` are those that were quoted before it was paid."""

    def credit(self, tenant: str, invoice: str, refund: str, reason: str) -> object:
        """The credit note of a refund that the ledger has."""


def catch_up(reader: Reader, papers: Papers, tenant: str) -> tuple[str, ...]:
    """Writes what a customer's card payments lack; returns why some could not be written."""
    refused: list[str] = []
    entries = [record.entry for record in reader.postings(tenant)]
    paid = [each.id for each in entries if isinstance(each, e.Deposited) and is_ours(each.id)]
    for deposit in paid:
        if reader.document(topup_id(tenant, deposit)) is not None:
            continue
        quoted = read(reader, p.taxes_id(deposit), p.Quote)
        taxes = quoted.value.taxes if quoted is not None else None
        try:
            papers.invoice(tenant, deposit, taxes)
        except Refusals as error:
            refused.append(f"no invoice of {deposit}: {error}")
    refunds = [each for each in entries if isinstance(each, e.Refunded) and each.of in paid]
    if not refunds:
        return tuple(refused)
    written = {each.content.get("refund") for each in list(reader.documents(CREDIT_NOTE, tenant))}
    for refund in refunds:
        invoice = topup_id(tenant, refund.of)
        if refund.id in written or reader.document(invoice) is None:
            continue
        try:
            papers.credit(tenant, invoice, refund.id, refund.reason)
        except Refusals as error:
            refused.append(f"no credit note of {refund.id}: {error}")
    return tuple(refused)


def without_invoice(reader: Reader, since: int) -> list[str]:
    """Customers who paid top-ups since ``since`` (ns) that have no invoice: one look-up, however
    many customers there are."""
    start = len(p.taxes_id("")) + 1
    sql = (
        "SELECT DISTINCT tenant FROM document AS paid WHERE kind = 'top-up-taxes' AND at > ?"  # noqa: S608
        " AND NOT EXISTS (SELECT 1 FROM document AS made WHERE made.id ="
        f" 'invoice/' || paid.tenant || '/topup/' || substr(paid.id, {start}))"
    )
    return [str(row[0]) for row in reader.rows(sql, (since,))]


def is_ours(deposit: str) -> bool:
    """Whether a deposit came from a card: a payment, or a refund of one that came back."""
    return deposit.startswith((p.deposit_id(""), p.give_back(p.refund_posting(""))))
