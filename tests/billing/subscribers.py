"""A book on a manual clock with plans to subscribe to, and a certificate to trust."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from avocado.billing.clerk import Done, Entitled, Tools, work
from avocado.billing.plan import Plan, parse_plan
from avocado.billing.plans import publish
from avocado.billing.subscription import Subscription
from avocado.billing.upkeep import load
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.entry import AnyEntry, Billed, Refunded
from avocado.ledger.ledger import open_ledger
from avocado.ledger.proof import prove
from avocado.ledger.reader import open_reader
from avocado.terms.money import NANO
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

DAY = 86_400 * NANO
SHEET = PriceSheet(prompt=200 * NANO, completion=800 * NANO)

BASIC = """
name = "basic"
kind = "subscription"
[subscription]
fee = "10.00"
included = [{ tokens = 1000 }]
"""
PRO = """
name = "pro"
kind = "subscription"
offers = ["avocado-1"]
title = { en = "Pro", de = "Profi" }
[subscription]
fee = "30.00"
credit = "3.00"
included = [{ tokens = 10_000, offers = ["avocado-1"] }, { tokens = 700 }]
[trial]
days = 14
tokens = 500
amount = "1.00"
[limits]
requests_per_minute = 60
"""
YEAR = """
name = "year"
kind = "subscription"
[subscription]
fee = "100.00"
period = "year"
included = [{ tokens = 50_000 }]
"""
FREE = """
name = "free"
kind = "pay-as-you-go"
[trial]
days = 7
amount = "2.00"
"""
PACKS = """
name = "packs"
kind = "prepaid"
packs = [{ price = "50.00", credit = "55.00", days = 365 }, { price = "10.00", credit = "10.50" }]
"""
PLANS = (BASIC, PRO, YEAR, FREE, PACKS)


def plan_of(text: str) -> Plan:
    return parse_plan(text.encode(), "USD")


def moment(day: date) -> int:
    """Noon of a day, UTC, in ns."""
    return int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * NANO


class Book:
    """A ledger, a reader of it, and the customer acme."""

    def __init__(
        self, target: Path | str, day: date = date(2026, 1, 31), money: int = 0, **customer: Any
    ) -> None:
        self.target = target
        self.clock = ManualClock(moment(day))
        self.ledger = open_ledger(target, self.clock)
        self.reader = open_reader(target)
        self.numbers = itertools.count(1)
        self.policies: dict[str, str | None] = {}
        self.do(o.OpenCustomer(tenant="acme", name="Acme Ltd", **customer))
        self.do(o.PublishPrice(terms=SHEET.terms()))
        for text in PLANS:
            publish(self.reader, self.do, plan_of(text))
        if money:
            self.deposit(money)

    def do(self, operation: o.AnyOperation) -> o.AnyResult:
        return self.ledger.do_now(operation)

    @property
    def now(self) -> int:
        return self.clock.now()

    @property
    def today(self) -> date:
        return datetime.fromtimestamp(self.now // NANO, UTC).date()

    def go(self, day: date) -> None:
        self.clock.pass_time(moment(day) - self.now)

    def days(self, count: int) -> None:
        self.go(self.today + timedelta(days=count))

    def deposit(self, units: int) -> None:
        id_ = f"dep-{next(self.numbers)}"
        self.do(o.Deposit(id=id_, tenant="acme", amount=units * NANO, currency="USD"))

    def use(self, tokens: int) -> None:
        """A request of that many prompt tokens."""
        id_ = f"req-{next(self.numbers)}"
        self.do(
            o.Hold(
                id=id_,
                tenant="acme",
                offer="avocado-1",
                release="release-1",
                price_version=SHEET.version,
                prompt_tokens=tokens,
                max_tokens=1,
            )
        )
        self.do(o.Settle(hold=id_, usage=Usage(tokens, 0)))

    def entitle(self, people: Sequence[Entitled]) -> list[Done]:
        """What the gateway would be told."""
        for each in people:
            self.policies[each.tenant] = each.plan if each.on else None
        return []

    def clerk(self, **tools: Any) -> tuple[Done, ...]:
        return work(self.reader, self.do, self.now, Tools(entitle=self.entitle, **tools))

    @property
    def sub(self) -> Subscription:
        stored = load(self.reader, "acme")
        assert stored is not None
        return stored.value

    @property
    def wallet(self) -> int:
        return self.reader.balance("acme").wallet

    def entries(self) -> list[AnyEntry]:
        return [record.entry for record in self.reader.postings("acme")]

    def fees(self) -> list[Billed]:
        return [each for each in self.entries() if isinstance(each, Billed)]

    def refunds(self, of: str) -> int:
        refunds = [each for each in self.entries() if isinstance(each, Refunded)]
        return sum(each.amount for each in refunds if each.of == of)

    def left(self) -> int:
        """Included tokens that can be used now."""
        open_ = [a for a in self.reader.allowances("acme") if (a.expires or 2**63) > self.now]
        return sum(each.left for each in open_)

    def broken(self) -> list[Any]:
        """What the proof of the book finds."""
        return [check for check in prove(self.reader, self.now, True) if not check.ok]

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one: for tests that pull no plug."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def books() -> Iterator[Callable[..., Book]]:
    """Makes books, proves each in the end, and closes it."""
    made: list[Book] = []

    def make(**how: Any) -> Book:
        made.append(Book(folder / f"book-{len(made)}.db", **how))
        return made[-1]

    with in_memory() as folder:
        yield make
        for book in made:
            assert book.broken() == []
            book.close()


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for localhost and 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
