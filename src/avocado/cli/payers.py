"""How a customer pays, shown to the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avocado.cli.book import reading
from avocado.cli.output import Output
from avocado.terms.money import Money
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.billing.payment import AutoTopUp
    from avocado.ledger.reader import Reader


def show_customer(out: Output, workspace: Workspace, customer: str) -> None:
    """The saved card, automatic top-ups and payments of a customer."""
    from avocado.billing.auto_topup import attempts
    from avocado.billing.topup import account_of

    with reading(workspace) as reader:
        currency = reader.customer(customer).currency
        stored = account_of(reader, customer)
        paid = _paid(reader, customer)
        tried = [stored for _, stored in attempts(reader, customer)]
    account = stored.value if stored is not None else None
    auto = account.auto if account is not None else None
    card = str(account.card) if account is not None and account.card is not None else None
    value: dict[str, Any] = {
        "customer": customer,
        "card": card,
        "auto_topup": None
        if auto is None
        else {
            "below": Money(auto.threshold, currency).decimal(),
            "amount": Money(auto.net, currency).decimal(),
            "most_a_month": Money(auto.most, currency).decimal(),
            "stopped": auto.off or None,
        },
        "automatic": [
            {"number": each.value.number, "state": each.value.state, "why": each.value.reason}
            for each in tried
        ],
        "payments": paid,
        "currency": currency,
    }
    lines = [f"{customer} pays with {card or 'no saved card'}", auto_in_words(auto, currency)]
    out.result(value, *lines)
    if paid and not out.json:
        columns = ["payment", "credit", "tax", "refunded"]
        out.table(columns, [[each[name] for name in columns] for each in paid])


def _paid(reader: Reader, customer: str) -> list[dict[str, str]]:
    from avocado.billing.papers import is_ours
    from avocado.billing.standing import paid_by
    from avocado.ledger.entry import Deposited

    ids = [
        record.entry.id
        for record in reader.postings(customer)
        if isinstance(record.entry, Deposited) and is_ours(record.entry.id)
    ]
    found = [paid_by(reader, id_.removeprefix("pay_")) for id_ in ids]
    return [
        {
            "payment": each.id.removeprefix("pay_"),
            "credit": Money(each.net, each.currency).decimal(),
            "tax": Money(each.tax, each.currency).decimal(),
            "refunded": Money(each.returned, each.currency).decimal(),
        }
        for each in found
        if each is not None
    ]


def auto_in_words(auto: AutoTopUp | None, currency: str) -> str:
    """What is agreed about automatic top-ups, in one line."""
    if auto is None:
        return "automatic top-ups: off"
    shown = [Money(nanos, currency) for nanos in (auto.threshold, auto.net, auto.most)]
    stopped = f"; stopped: {auto.off}" if auto.off else ""
    return f"automatic top-ups: {shown[1]} below {shown[0]}, at most {shown[2]} a month{stopped}"
