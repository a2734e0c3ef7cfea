"""The ledger against a plain model: random operations, retries, lost replies, crashes, time.

The model is a few dicts and knows nothing of journals or stores. After every step both must say the
same balances; at the end of every run the proof must hold, with everything replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from avocado.ledger import operation as o
from avocado.ledger.errors import LedgerError, LedgerUnavailable
from avocado.ledger.rows import PROMISED
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ledger.conftest import Desk

SECOND = 10**9
TENANTS = st.sampled_from(["acme", "globex"])
AMOUNTS = st.sampled_from([1, 999, 420_000, 10**6, 10**7])
TOKENS = st.integers(0, 500)


def price(prompt: int, completion: int, covered: int = 0) -> int:
    """Nano-units at 0.2 and 0.8 of a unit per million tokens, rounded up; the first ``covered``
    tokens are free."""
    completion -= min(completion, max(covered - prompt, 0))
    prompt -= min(prompt, covered)
    return -(-(prompt * 200_000_000 + completion * 800_000_000) // 1_000_000)


@dataclass
class Lot:
    left: int
    expires: int | None
    order: int
    over: bool = False


@dataclass
class Tokens:
    """An allowance."""

    left: int
    expires: int | None
    order: int
    offers: tuple[str, ...]
    reserved: int = 0
    used: int = 0
    over: bool = False


@dataclass
class Request:
    tenant: str
    operation: o.Hold
    amount: int
    parts: list[tuple[str, int]]
    tokens: list[tuple[str, int]] = field(default_factory=list)
    covered: int = 0
    state: str = "open"
    progress: Usage = field(default_factory=Usage)
    usage: Usage | None = None
    charge: int = 0
    refunded: int = 0
    ended: int | None = None


@dataclass
class Model:
    """What the books should say."""

    now: Callable[[], int]
    wallet: dict[str, int] = field(default_factory=dict)
    credit: dict[str, int] = field(default_factory=dict)
    limit: dict[str, int | None] = field(default_factory=dict)
    lots: dict[str, dict[str, Lot]] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    deposits: dict[str, tuple[str, int]] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    tokens: dict[str, dict[str, Tokens]] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    revenue: int = 0
    fees: int = 0
    taxes: int = 0

    def spend_order(self, tenant: str, now: int) -> list[tuple[str, Lot]]:
        live = [
            (name, lot)
            for name, lot in self.lots[tenant].items()
            if lot.left and (lot.expires is None or lot.expires > now)
        ]
        return sorted(live, key=lambda item: (item[1].expires or 2**63, item[1].order))

    def expire(self, tenant: str, now: int) -> None:
        for lot in self.lots[tenant].values():
            if lot.expires is not None and lot.expires <= now:
                lot.left = 0

    def cover(self, op: o.Hold, now: int) -> list[tuple[str, int]]:
        """The tokens of each allowance that a request may reserve; overdue ones end."""
        left, parts = op.prompt_tokens + op.n * op.max_tokens, []
        for lot in self.tokens[op.tenant].values():
            if lot.expires is not None and lot.expires <= now:
                lot.left = 0
        for name, lot in sorted(
            self.tokens[op.tenant].items(),
            key=lambda item: (item[1].expires or 2**63, item[1].order),
        ):
            take = min(left, lot.left)
            if take and (not lot.offers or op.offer in lot.offers):
                left -= take
                parts.append((name, take))
        return parts

    def spent(self, tenant: str) -> int:
        return sum(
            request.amount if request.state == "open" else request.charge - request.refunded
            for request in self.requests.values()
            if request.tenant == tenant
        )

    def place(self, op: o.Hold, now: int) -> str | None:
        """The code of the refusal, or None and the hold is in the books."""
        if op.tenant in self.frozen:
            return "account_frozen"
        if op.idempotency_key is not None:
            first = self.requests.get(self.keys.get((op.tenant, op.idempotency_key), ""))
            if first is not None and first.ended is not None and first.ended + PROMISED <= now:
                first = None
            if first is not None and first.operation.fingerprint != op.fingerprint:
                return "idempotency_conflict"
            if first is not None and first.state != "voided":
                return "duplicate"
        amount = price(op.prompt_tokens, op.n * op.max_tokens)
        self.expire(op.tenant, now)
        tokens = self.cover(op, now) if amount else []
        covered = sum(take for _, take in tokens)
        amount = price(op.prompt_tokens, op.n * op.max_tokens, covered)
        limit = self.limit.get(op.tenant)
        if limit is not None and amount and self.spent(op.tenant) + amount > limit:
            return "spend_limit_reached"
        lots = self.spend_order(op.tenant, now)
        room = sum(lot.left for _, lot in lots)
        if amount > room + self.wallet[op.tenant] + self.credit[op.tenant]:
            return "insufficient_funds"
        left, parts = amount, []
        for name, lot in lots:
            take = min(left, lot.left)
            if take:
                lot.left -= take
                left -= take
                parts.append((name, take))
        if left:
            self.wallet[op.tenant] -= left
            parts.append(("wallet", left))
        for name, take in tokens:
            self.tokens[op.tenant][name].left -= take
            self.tokens[op.tenant][name].reserved += take
        self.requests[op.id] = Request(op.tenant, op, amount, parts, tokens)
        if op.idempotency_key is not None:
            self.keys[op.tenant, op.idempotency_key] = op.id
        return None

    def end(self, id_: str, usage: Usage | None) -> None:
        """Settles with ``usage``, or voids."""
        request = self.requests[id_]
        request.ended = self.now()
        request.state = "settled" if usage else "voided"
        request.usage = usage
        reserved = sum(tokens for _, tokens in request.tokens)
        request.covered = min(reserved, usage.total) if usage else 0
        request.charge = price(usage.prompt, usage.completion, request.covered) if usage else 0
        self.use(request)
        self.revenue += request.charge
        due = request.charge
        for name, amount in request.parts:
            take = min(amount, due)
            due -= take
            self.give(request.tenant, name, amount - take)

    def use(self, request: Request) -> None:
        """Reserved tokens are used as far as they are covered; the rest is free again."""
        due = request.covered
        for name, tokens in request.tokens:
            take = min(tokens, due)
            due -= take
            lot = self.tokens[request.tenant][name]
            lot.reserved -= tokens
            lot.used += take
            lot.left += tokens - take

    def give(self, tenant: str, name: str, amount: int) -> None:
        if name == "wallet":
            self.wallet[tenant] += amount
        else:
            self.lots[tenant][name].left += amount

    def refund(self, id_: str, amount: int) -> None:
        request = self.requests[id_]
        due, eaten = request.charge, []
        for name, part in request.parts:
            eaten.append((name, min(part, due)))
            due -= min(part, due)
        skip, left = request.refunded, amount
        for name, part in reversed(eaten):
            passed = min(skip, part)
            skip -= passed
            give = min(part - passed, left)
            left -= give
            self.give(request.tenant, name, give)
        request.refunded += amount
        self.revenue -= amount


class LedgerMachine(RuleBasedStateMachine):
    """Drives a desk and the model side by side."""

    make_desk: Callable[[], Desk]

    def __init__(self) -> None:
        super().__init__()
        self.desk = type(self).make_desk()
        self.model = Model(self.desk.clock.now)
        self.count = 0
        self.lose: str | None = None

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}-{self.count}"

    def ask(self, operation: o.AnyOperation) -> tuple[str | None, Any]:
        """(code of the refusal or None, result). The commit may be made to fail or go unheard."""
        if self.lose is not None:
            self._lose_one_commit(before=self.lose == "before")
            self.lose = None
        try:
            return None, self.desk.do(operation)
        except LedgerError as error:
            return error.code, error

    def _lose_one_commit(self, before: bool) -> None:
        store = self.desk.ledger._writer._store
        commit = store.commit

        def failing() -> None:
            store.commit = commit  # type: ignore[method-assign]
            if not before:
                commit()
            raise LedgerUnavailable("the reply was lost")

        store.commit = failing  # type: ignore[method-assign]

    @initialize(credit=st.sampled_from([0, 300_000]))
    def begin(self, credit: int) -> None:
        for tenant in ("acme", "globex"):
            self.desk.setup(tenant=tenant, credit_limit=credit)
            self.model.wallet[tenant] = 0
            self.model.credit[tenant] = credit
            self.model.lots[tenant] = {}
            self.model.tokens[tenant] = {}

    # -- rules -----------------------------------------------------------------------------------

    @rule(when=st.sampled_from(["before", "after"]))
    def next_commit_is_lost(self, when: str) -> None:
        self.lose = when

    @rule(tenant=TENANTS, amount=AMOUNTS, tax=st.sampled_from([0, 0, 77]), twice=st.booleans())
    def deposit(self, tenant: str, amount: int, tax: int, twice: bool) -> None:
        id_ = self.fresh("dep")
        op = o.Deposit(id=id_, tenant=tenant, amount=amount, currency="USD", tax=tax)
        code, _ = self.ask(op)
        assert code is None
        if twice:
            assert self.ask(op)[1].replayed
        self.model.wallet[tenant] += amount
        self.model.deposits[id_] = (tenant, amount)
        self.model.taxes += tax

    @rule(
        tenant=TENANTS,
        tokens=st.integers(1, 1500),
        seconds=st.none() | st.integers(1, 50),
        offers=st.sampled_from([(), ("avocado-1",), ("avocado-2",)]),
    )
    def allow(self, tenant: str, tokens: int, seconds: int | None, offers: tuple[str, ...]) -> None:
        id_ = self.fresh("lot")
        expires = None if seconds is None else self.desk.clock.now() + seconds * SECOND
        op = o.Allow(id=id_, tenant=tenant, tokens=tokens, expires=expires, offers=offers)
        assert self.ask(op)[0] is None
        self.model.tokens[tenant][id_] = Tokens(tokens, expires, self.count, offers)
        assert self.ask(op)[1].replayed

    @rule(tenant=TENANTS, data=st.data())
    def end_allowance(self, tenant: str, data: st.DataObject) -> None:
        if not self.model.tokens[tenant]:
            return
        id_ = data.draw(st.sampled_from(sorted(self.model.tokens[tenant])))
        assert self.ask(o.EndAllowance(id=id_, reason="r"))[0] is None
        lot = self.model.tokens[tenant][id_]
        lot.left, lot.over, lot.expires = 0, True, 1

    @rule(tenant=TENANTS, amount=AMOUNTS)
    def bill(self, tenant: str, amount: int) -> None:
        op = o.Bill(
            id=self.fresh("fee"), tenant=tenant, amount=amount, currency="USD", item="plan:pro@1"
        )
        fits = self.model.wallet[tenant] + self.model.credit[tenant] >= amount
        assert self.ask(op)[0] == (None if fits else "insufficient_funds")
        if fits:
            self.model.wallet[tenant] -= amount
            self.model.fees += amount

    @rule(tenant=TENANTS, frozen=st.sampled_from([True, False, False]))
    def freeze(self, tenant: str, frozen: bool) -> None:
        op = o.Freeze(tenant=tenant, frozen=frozen, reason="dispute", actor="ops")
        assert self.ask(op)[0] is None
        (self.model.frozen.add if frozen else self.model.frozen.discard)(tenant)

    @rule(tenant=TENANTS, amount=AMOUNTS, seconds=st.none() | st.integers(1, 50))
    def grant(self, tenant: str, amount: int, seconds: int | None) -> None:
        id_ = self.fresh("gift")
        expires = None if seconds is None else self.desk.clock.now() + seconds * SECOND
        op = o.Grant(id=id_, tenant=tenant, amount=amount, currency="USD", expires=expires)
        assert self.ask(op)[0] is None
        self.model.lots[tenant][id_] = Lot(amount, expires, self.count)

    @rule(
        tenant=TENANTS,
        prompt=TOKENS,
        most=TOKENS,
        n=st.integers(1, 2),
        key=st.none() | st.sampled_from(["a", "b"]),
        mark=st.sampled_from(["x", "y"]),
    )
    def hold(self, tenant: str, prompt: int, most: int, n: int, key: str | None, mark: str) -> None:
        op = self.desk.request(
            self.fresh("req"),
            tenant,
            prompt_tokens=prompt,
            max_tokens=most,
            n=n,
            idempotency_key=key,
            fingerprint=mark if key else None,
        )
        expected = self.model.place(op, self.desk.clock.now())
        code, result = self.ask(op)
        assert code == expected
        if code is None:
            assert result.amount == self.model.requests[op.id].amount

    def pick(self, data: st.DataObject, state: str) -> str | None:
        ids = [id_ for id_, request in self.model.requests.items() if request.state == state]
        return data.draw(st.sampled_from(ids)) if ids else None

    @rule(data=st.data(), too_much=st.booleans())
    def settle(self, data: st.DataObject, too_much: bool) -> None:
        if (id_ := self.pick(data, "open")) is None:
            return
        op = self.model.requests[id_].operation
        usage = Usage(
            data.draw(st.integers(0, op.prompt_tokens)),
            data.draw(st.integers(0, op.n * op.max_tokens)),
        )
        if too_much:
            beyond = Usage(op.prompt_tokens, op.n * op.max_tokens + 1)
            assert self.ask(o.Settle(hold=id_, usage=beyond))[0] == "usage_beyond_hold"
        code, result = self.ask(o.Settle(hold=id_, usage=usage))
        assert code is None
        self.model.end(id_, usage)
        assert result.charge == self.model.requests[id_].charge
        assert result.covered == self.model.requests[id_].covered
        again = self.ask(o.Settle(hold=id_, usage=usage))[1]
        assert (again.replayed, again.charge) == (True, result.charge)

    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        if (id_ := self.pick(data, "open")) is not None:
            assert self.ask(o.Void(hold=id_, reason="failed"))[0] is None
            self.model.end(id_, None)

    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        if (id_ := self.pick(data, "open")) is None:
            return
        request = self.model.requests[id_]
        op = request.operation
        most = op.n * op.max_tokens
        usage = Usage(op.prompt_tokens, data.draw(st.integers(request.progress.completion, most)))
        assert self.ask(o.Progress(hold=id_, usage=usage))[0] is None
        request.progress = usage

    @rule(data=st.data(), share=st.integers(1, 3))
    def refund(self, data: st.DataObject, share: int) -> None:
        if (id_ := self.pick(data, "settled")) is None:
            return
        request = self.model.requests[id_]
        left = request.charge - request.refunded
        op = o.Refund(id=self.fresh("ref"), of=id_, reason="r", amount=max(1, left // share))
        code, _ = self.ask(op)
        assert code == (None if left else "nothing_to_refund")
        if left:
            self.model.refund(id_, max(1, left // share))

    @rule(tenant=TENANTS, amount=st.integers(-400_000, 400_000).filter(bool))
    def adjust(self, tenant: str, amount: int) -> None:
        op = o.Adjust(
            id=self.fresh("adj"),
            tenant=tenant,
            amount=amount,
            currency="USD",
            reason="r",
            actor="a",
        )
        fits = self.model.wallet[tenant] + amount >= -self.model.credit[tenant] or amount > 0
        assert self.ask(op)[0] == (None if fits else "insufficient_funds")
        if fits:
            self.model.wallet[tenant] += amount

    @rule(tenant=TENANTS, total=st.none() | st.integers(0, 3_000_000))
    def limit(self, tenant: str, total: int | None) -> None:
        assert self.ask(o.SetSpendLimit(tenant=tenant, total=total))[0] is None
        self.model.limit[tenant] = total

    @rule(seconds=st.integers(1, 30))
    def time_goes_by(self, seconds: int) -> None:
        self.desk.clock.pass_time(seconds * SECOND)

    @precondition(lambda self: not any(r.state == "open" for r in self.model.requests.values()))
    @rule()
    def a_day_goes_by(self) -> None:
        self.desk.clock.pass_time(PROMISED)

    @rule(hours=st.sampled_from([-1, 1]))
    def the_clock_is_set(self, hours: int) -> None:
        self.desk.clock.step(hours * 3600 * SECOND)

    def _recover(self) -> None:
        for id_, request in self.model.requests.items():
            if request.state == "open":
                used = request.progress
                self.model.end(id_, used if used.total else None)

    @rule()
    def the_process_dies(self) -> None:
        self.lose = None
        self.desk.crash()
        self._recover()

    @rule(data=st.data(), committed=st.booleans())
    def the_process_dies_while_settling(self, data: st.DataObject, committed: bool) -> None:
        if (id_ := self.pick(data, "open")) is None:
            return
        self.lose = None
        op = self.model.requests[id_].operation
        usage = Usage(op.prompt_tokens, op.n * op.max_tokens)
        if committed:
            assert self.ask(o.Settle(hold=id_, usage=usage))[0] is None
            self.model.end(id_, usage)
        self.desk.crash()
        self._recover()
        request = self.model.requests[id_]
        same = request.state == "settled" and request.usage == usage
        assert self.ask(o.Settle(hold=id_, usage=usage))[0] == (
            None if committed and same else "hold_not_open"
        )

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self) -> None:
        for tenant, wallet in self.model.wallet.items():
            with self.desk.reader as reader:
                balance = reader.balance(tenant)
                accounts = reader.accounts()
            held = sum(
                request.amount
                for request in self.model.requests.values()
                if request.state == "open" and request.tenant == tenant
            )
            assert (balance.wallet, balance.held) == (wallet, held)
            assert balance.wallet >= -self.model.credit[tenant]
            assert accounts.get("revenue:release-1:USD", 0) == self.model.revenue
            assert accounts.get("revenue:plan:pro@1:USD", 0) == self.model.fees
            assert accounts.get("taxes:USD", 0) == self.model.taxes
            assert sum(accounts.values()) == 0
            self._grants_agree(tenant, accounts)
            self._tokens_agree(tenant)

    def _tokens_agree(self, tenant: str) -> None:
        """As with grants: what is over may end at any moment after."""
        now = self.desk.clock.now()
        with self.desk.reader as reader:
            found = {lot.id: lot for lot in reader.allowances(tenant)}
        assert found.keys() == self.model.tokens[tenant].keys()
        for name, lot in self.model.tokens[tenant].items():
            lot.over = lot.over or (lot.expires is not None and lot.expires <= now)
            stored = found[name]
            if lot.over and stored.left == 0:
                lot.left = 0
            assert (stored.left, stored.reserved, stored.used) == (
                lot.left,
                lot.reserved,
                lot.used,
            )
            assert stored.tokens == stored.left + stored.reserved + stored.used + stored.expired

    def _grants_agree(self, tenant: str, accounts: dict[str, int]) -> None:
        """A grant whose time was over at some moment may be taken back at any moment after."""
        now = self.desk.clock.now()
        for name, lot in self.model.lots[tenant].items():
            lot.over = lot.over or (lot.expires is not None and lot.expires <= now)
            if lot.over and accounts[f"grant:{name}"] == 0:
                lot.left = 0
            elif not lot.over:
                assert accounts[f"grant:{name}"] == lot.left

    def teardown(self) -> None:
        try:
            assert self.desk.broken() == []
        finally:
            self.desk.close()


def _drive(make_desk: Callable[[], Desk], examples: int, steps: int) -> None:
    machine = type("Machine", (LedgerMachine,), {"make_desk": staticmethod(make_desk)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_ledger_agrees_with_the_model(new_desk: Callable[[], Desk]) -> None:
    _drive(new_desk, examples=15, steps=25)


@pytest.mark.slow
def test_the_ledger_agrees_with_the_model_for_long(new_desk: Callable[[], Desk]) -> None:
    _drive(new_desk, examples=200, steps=60)
