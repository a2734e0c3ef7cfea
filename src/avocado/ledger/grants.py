"""Given money: which grants can be spent, in which order, and when their time is over. Pure."""

from __future__ import annotations

from avocado.ledger import entry as e
from avocado.ledger import transfer
from avocado.ledger.rows import Account, Customer, GrantRow
from avocado.ledger.state import State


def live_lots(state: State, tenant: str, at: int) -> list[GrantRow]:
    """The tenant's grants with money left and time left, in the order in which they are spent."""
    lots = state.lots_of(tenant)
    if not lots:
        return []
    live = [lot for lot in lots.values() if lot.expires is None or lot.expires > at]
    return sorted(live, key=lambda lot: (lot.priority, lot.expires or 2**63, lot.seq))


def balance_of(state: State, name: str) -> int:
    account = state.get(Account, name)
    return account.balance if account else 0


def available(state: State, tenant: str, at: int) -> int:
    """Posted minus held, in nano-units: the wallet and what is left of live grants."""
    total = balance_of(state, f"wallet:{tenant}")
    for lot in live_lots(state, tenant, at):
        total += balance_of(state, f"grant:{lot.id}")
    return total


def expire_grants(state: State, tenant: str, at: int) -> None:
    """Posts the end of the tenant's grants whose time is over."""
    lots = state.lots_of(tenant)
    if not lots:
        return
    customer = state.need(Customer, tenant)
    for lot in [lot for lot in lots.values() if lot.expires is not None and lot.expires <= at]:
        name = transfer.grant(lot.id)
        left = balance_of(state, name)
        state.post(
            e.GrantExpired(
                id=lot.id,
                tenant=tenant,
                currency=customer.currency,
                amount=left,
                legs=transfer.move(name, transfer.grants(customer.currency), left),
            ),
            at,
        )
