"""A till to test at: an open ledger with a customer, and payments by a provider over real HTTP."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from avocado.billing import stripe_provider
from avocado.billing.auto_topup import attempts
from avocado.billing.events import Outcome
from avocado.billing.invoices import TaxSum
from avocado.billing.payment import deposit_id
from avocado.billing.payments import Payments
from avocado.billing.provider import Provider, open_provider
from avocado.billing.topup import account_of
from avocado.ledger import operation as o
from avocado.ledger import proof
from avocado.ledger.clock import ManualClock
from avocado.ledger.errors import LedgerError
from avocado.ledger.ledger import open_ledger
from avocado.ledger.reader import Reader, open_reader
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from tests.billing.stripe_stand_in import KEY, SECRET, StandIn, signed

EURO = 1_000_000_000
SHEET = PriceSheet(prompt=1_000_000_000_000, completion=1_000_000_000_000, currency="EUR")
"""A thousandth of a euro a token: 1,000 tokens are a euro."""


def vat(_tenant: str, coins: int) -> tuple[TaxSum, ...]:
    """German VAT, half up."""
    return (TaxSum(190_000, "S", coins, (coins * 19 + 50) // 100, "standard", "DE"),)


class Till:
    """The stand-in, a ledger on a manual clock, and short ways to do and to ask."""

    def __init__(
        self, target: Path | str, stripe: StandIn, provider: Provider | None = None
    ) -> None:
        self.stripe = stripe
        self.target = target
        self.clock = ManualClock()
        self.ledger = open_ledger(target, self.clock)
        self.reader: Reader = open_reader(target)
        self.provider = provider or provider_at(stripe.base)
        self.done: list[o.AnyOperation] = []
        self.fail: Callable[[o.AnyOperation], bool] = lambda _: False
        self._requests = 0
        self.payments = Payments(self.provider, self.reader, self.do, vat, minimum=5 * EURO)
        self.do(o.PublishPrice(terms=SHEET.terms()))
        self.open("acme")

    def open(self, tenant: str, currency: str = "EUR", credit_limit: int = 0) -> None:
        self.do(
            o.OpenCustomer(tenant=tenant, name=tenant, currency=currency, credit_limit=credit_limit)
        )

    def do(self, operation: o.AnyOperation) -> o.AnyResult:
        """As a command does it; ``fail`` makes it die before an operation."""
        if self.fail(operation):
            raise Crash(type(operation).__name__)
        result = self.ledger.do_now(operation)
        self.done.append(operation)
        return result

    def use(self, tokens: int, tenant: str = "acme") -> None:
        """Spends a thousandth of a euro a token."""
        self._requests += 1
        request = f"req-{self._requests}"
        self.do(
            o.Hold(
                id=request,
                tenant=tenant,
                offer="avocado-1",
                release="release-1",
                price_version=SHEET.version,
                prompt_tokens=tokens,
                max_tokens=0,
            )
        )
        self.do(o.Settle(hold=request, usage=Usage(tokens, 0)))

    def checkout(self, net: int = 10 * EURO, tenant: str = "acme") -> str:
        made = self.payments.open_checkout(tenant, net, "https://c.test/ok", "https://c.test/no")
        return made.id

    def paid(self, net: int = 10 * EURO, tenant: str = "acme") -> str:
        """A top-up that was paid and whose event came; returns the payment."""
        payment = self.stripe.pay(self.checkout(net, tenant))
        outcome = self.deliver(self.stripe.event("payment_intent.succeeded"))
        assert outcome.deposit == deposit_id(payment), outcome
        return payment

    def deliver(self, event: dict[str, Any], at: int | None = None) -> Outcome:
        return self.payments.receive(*signed(event, at))

    def save_card(self, last4: str = "4242", tenant: str = "acme") -> None:
        """The customer is known at the provider and has a card there."""
        from avocado.billing.topup import payer_for

        payer = payer_for(self.reader, self.do, self.provider, tenant)
        self.stripe.save_card(payer, last4)
        self.deliver(self.stripe.event("payment_method.attached"))

    def auto(
        self, threshold: int = 5, net: int = 20, most: int = 100, tenant: str = "acme"
    ) -> None:
        self.payments.set_auto(tenant, threshold * EURO, net * EURO, most * EURO)

    def later(self, nanos: int) -> None:
        """Time passes, on both clocks."""
        self.clock.pass_time(nanos)

    @property
    def now(self) -> int:
        return self.clock.now()

    def wallet(self, tenant: str = "acme") -> int:
        return self.reader.balance(tenant).wallet

    def account(self, name: str) -> int:
        return self.reader.accounts().get(name, 0)

    def frozen(self, tenant: str = "acme") -> str:
        return self.reader.customer(tenant).frozen

    def deposits(self) -> list[o.Deposit]:
        return [each for each in self.done if isinstance(each, o.Deposit)]

    def tries(self, tenant: str = "acme") -> list[str]:
        return [stored.value.state for _, stored in attempts(self.reader, tenant)]

    def stopped(self, tenant: str = "acme") -> str:
        stored = account_of(self.reader, tenant)
        assert stored is not None
        assert stored.value.auto is not None
        return stored.value.auto.off

    def refused(self, operation: o.AnyOperation) -> str:
        with pytest.raises(LedgerError) as caught:
            self.ledger.do_now(operation)
        return caught.value.code

    def proven(self) -> bool:
        return all(check.ok for check in proof.prove(self.reader, self.clock.now(), True))

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()


class Crash(BaseException):
    """The process dies here: nothing catches it."""


def provider_at(base: str) -> Provider:
    """Stripe's adapter against a server of ours; a server that is away is not waited for."""
    stripe_provider.RETRIES = 0  # type: ignore[misc]
    keys = {"STRIPE_API_KEY": KEY, "STRIPE_WEBHOOK_SECRET": SECRET}
    return open_provider("stripe", keys, base)


@contextmanager
def till_at(stripe: StandIn, folder: Path, provider: Provider | None = None) -> Iterator[Till]:
    """A till whose book lies in memory where there is such a place, and is proven in the end."""
    home = folder
    if Path("/dev/shm").is_dir():  # that commits are durable is tested elsewhere
        home = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="avocado-till-"))
    try:
        till = Till(home / "book.sqlite", stripe, provider)
        yield till
        assert till.proven()
        till.close()
    finally:
        if home != folder:
            shutil.rmtree(home, ignore_errors=True)
