"""Amounts as people type them: ``12.50`` and, where that is how decimals are written, ``12,50``."""

from __future__ import annotations

from avocado.console.page import Visit
from avocado.errors import Refused
from avocado.terms.money import Money, MoneyError


def read_amount(visit: Visit, name: str, currency: str) -> int | None:
    """The field's amount in nano-units; None where nothing was typed.

    Raises:
        Refused: what was typed is no amount.
    """
    text = visit.form.text(name, 40)
    if not text:
        return None
    plain = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    try:
        return Money.parse(plain, currency).nanos
    except MoneyError:
        raise Refused(visit.t("form.amount", text=text)) from None


def need_amount(visit: Visit, name: str, currency: str) -> int:
    """The same for an amount that must be there, and more than nothing. Raises Refused."""
    found = read_amount(visit, name, currency)
    if not found:
        raise Refused(visit.t("form.amount_missing"))
    return found


def typed(nanos: int | None, currency: str) -> str:
    """An amount as a field shows it."""
    return "" if nanos is None else Money(nanos, currency).decimal()
