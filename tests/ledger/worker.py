"""A process under load, to be killed: makes requests and says on its output what was acknowledged.

    python worker.py TARGET NAME CALLERS REQUESTS

Lines: ``open SETTLED VOIDED`` (what opening recovered), ``held ID``, ``settled ID CHARGE``,
``voided ID``, ``refused ID CODE``, ``done``. A line is written only after the ledger's answer.
"""

from __future__ import annotations

import asyncio
import os
import sys

from avocado.ledger import operation as o
from avocado.ledger.errors import LedgerError, LedgerUnavailable
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

SHEET = PriceSheet(200_000_000, 800_000_000)


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def request(ledger: Ledger, id_: str, tenant: str, turn: int) -> None:
    operation = o.Hold(
        id=id_,
        tenant=tenant,
        offer="avocado-1",
        release="release-1",
        price_version=SHEET.version,
        prompt_tokens=100,
        max_tokens=500,
    )
    try:
        await patiently(ledger, operation)
        say("held", id_)
        ledger.progress(id_, Usage(100, turn % 100))
        await asyncio.sleep(0)
        if turn % 5 == 4:
            await patiently(ledger, o.Void(hold=id_, reason="failed"))
            say("voided", id_)
        else:
            usage = Usage(100, 100 + turn % 400)
            settled = await patiently(ledger, o.Settle(hold=id_, usage=usage))
            assert isinstance(settled, o.Settled)
            say("settled", id_, settled.charge)
    except LedgerError as error:
        say("refused", id_, error.code)


async def patiently(ledger: Ledger, operation: o.AnyOperation) -> o.AnyResult:
    """Asks again, by the same id, while the ledger is away: what a gateway's own task does."""
    for _ in range(150):
        try:
            return await ledger.do(operation)
        except LedgerUnavailable:
            await asyncio.sleep(0.1)
    raise LedgerUnavailable("gone for too long")


async def work(ledger: Ledger, name: str, callers: int, requests: int) -> None:
    async def caller(number: int) -> None:
        for turn in range(requests):
            await request(ledger, f"{name}-{number}-{turn}", f"t{number % 4}", turn)

    await asyncio.gather(*(caller(number) for number in range(callers)))


def main(target: str, name: str, callers: int, requests: int) -> None:
    with open_ledger(target) as ledger:
        say("open", ledger.recovery.settled, ledger.recovery.voided)
        ledger.do_now(o.PublishPrice(terms=SHEET.terms()))
        for number in range(4):
            tenant = f"t{number}"
            ledger.do_now(o.OpenCustomer(tenant=tenant, name=tenant))
            deposit = o.Deposit(id=f"d-{tenant}", tenant=tenant, amount=10**12, currency="USD")
            ledger.do_now(deposit)
        asyncio.run(work(ledger, name, callers, requests))
    say("done")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
