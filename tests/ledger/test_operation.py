"""Operations, answers and transfers as values: they travel, and they balance."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.ledger import entry as e
from avocado.ledger import errors, transfer
from avocado.ledger import operation as o
from avocado.terms.price import Line
from avocado.terms.usage import Usage

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NANOS = st.integers(-(2**63) + 1, 2**63 - 1)
USAGES = st.builds(
    lambda prompt, completion: Usage(prompt, completion, prompt // 2, completion // 2),
    st.integers(0, 2**53 - 1),
    st.integers(0, 2**53 - 1),
)
st.register_type_strategy(Usage, USAGES)
OPERATIONS = st.one_of(
    st.builds(o.OpenCustomer, tenant=TEXT, name=TEXT, currency=TEXT, credit_limit=NANOS),
    st.builds(o.SetCreditLimit, tenant=TEXT, credit_limit=NANOS),
    st.builds(o.SetSpendLimit, tenant=TEXT, key_id=st.none() | TEXT, month=st.none() | NANOS),
    st.builds(o.AddKey, key_id=TEXT, tenant=TEXT, name=TEXT, digest=TEXT, created=NANOS),
    st.builds(o.RevokeKey, key_id=TEXT),
    st.builds(o.PublishPrice, terms=st.dictionaries(TEXT, NANOS | TEXT | st.none(), max_size=3)),
    st.builds(o.Deposit, id=TEXT, tenant=TEXT, amount=NANOS, currency=TEXT, reference=TEXT),
    st.builds(o.Grant, id=TEXT, tenant=TEXT, amount=NANOS, currency=TEXT),
    st.builds(
        o.Hold,
        id=TEXT,
        tenant=TEXT,
        offer=TEXT,
        release=TEXT,
        price_version=TEXT,
        prompt_tokens=NANOS,
        max_tokens=NANOS,
    ),
    st.builds(o.Progress, hold=TEXT, usage=USAGES),
    st.builds(o.Settle, hold=TEXT, usage=USAGES, finish=TEXT),
    st.builds(o.Void, hold=TEXT, reason=TEXT),
    st.builds(o.Refund, id=TEXT, of=TEXT, reason=TEXT, amount=st.none() | NANOS),
    st.builds(o.Adjust, id=TEXT, tenant=TEXT, amount=NANOS, currency=TEXT, reason=TEXT, actor=TEXT),
)


@given(OPERATIONS)
def test_operations_read_back_as_themselves(operation: o.AnyOperation) -> None:
    data = o.encode(operation)
    assert b"\n" not in data
    assert o.decode_operation(data) == operation


@given(NANOS, USAGES, TEXT)
def test_answers_read_back_as_themselves(nanos: int, usage: Usage, text: str) -> None:
    answers: list[o.AnyResult | o.Failure] = [
        o.Recorded(seq=1, id=text),
        o.Posted(seq=1, id=text, amount=nanos, available=nanos),
        o.Held(seq=1, hold=text, amount=nanos, currency="USD", available=nanos),
        o.Settled(
            seq=1,
            replayed=True,
            hold=text,
            charge=nanos,
            currency="USD",
            usage=usage,
            lines=(Line("prompt", 1, 2, 3),),
            available=nanos,
        ),
        o.Voided(seq=1, hold=text, available=nanos),
        o.Noted(seq=1),
        o.failure(errors.InsufficientFunds(nanos, 5)),
    ]
    for answer in answers:
        assert o.decode_answer(o.encode(answer)) == answer


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b'{"do":"Close","hold":"x","cause":"y"}',
        b'{"do":"Void","hold":1,"reason":"x"}',
        b'{"do":"Settle","hold":"x","usage":{"prompt":-1}}',
        b'{"do":"Settle","hold":"x","usage":{"prompt":1e400}}',
        b'{"do":"Settle","hold":"x","usage":{"completion":NaN}}',
        b'{"do":"Deposit","id":"x","tenant":"t","amount":1.5,"currency":"USD"}',
    ],
)
def test_what_is_no_operation_is_refused(data: bytes) -> None:
    with pytest.raises((msgspec.ValidationError, msgspec.DecodeError)):
        o.decode_operation(data)


def test_every_error_has_its_own_code() -> None:
    kinds = [errors.LedgerError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    ours = [kind for kind in kinds if kind.__module__.startswith("avocado")]  # tests have theirs
    codes = [kind.code for kind in ours if kind is not errors.LedgerError]
    assert len(set(codes)) == len(codes) > 15


PARTS = st.lists(
    st.tuples(st.sampled_from(["grant:a", "grant:b", "wallet:t"]), st.integers(1, 10**9)),
    max_size=3,
    unique_by=lambda part: part[0],
).map(tuple)


@given(PARTS, st.data())
def test_every_transfer_balances_and_comes_back_whole(
    parts: transfer.Parts, data: st.DataObject
) -> None:
    total = sum(amount for _, amount in parts)
    charge = data.draw(st.integers(0, total))
    placed = transfer.place("t", parts)
    settled = transfer.settle("t", parts, charge, "revenue:r:USD")
    assert transfer.balanced(placed)
    assert transfer.balanced(settled)
    balances: dict[str, int] = {}
    for name, delta in (*placed, *settled):
        balances[name] = balances.get(name, 0) + delta
    assert balances.get("held:t", 0) == 0
    assert balances.get("revenue:r:USD", 0) == charge
    eaten = transfer.consumed(parts, charge)
    assert {name: -amount for name, amount in eaten} == {
        name: delta for name, delta in balances.items() if name in dict(parts) and delta
    }
    before = 0
    while before < charge:
        amount = data.draw(st.integers(1, charge - before))
        for name, back in transfer.unwind(eaten, before, amount):
            balances[name] += back
        before += amount
    assert all(balances.get(name, 0) == 0 for name, _ in parts)


@given(st.binary(min_size=32, max_size=32), st.integers(1), st.integers(0), st.binary())
def test_a_seal_depends_on_everything(before: bytes, seq: int, at: int, body: bytes) -> None:
    seals = {
        e.seal(before, seq, at, body),
        e.seal(bytes([before[0] ^ 1]) + before[1:], seq, at, body),
        e.seal(before, seq + 1, at, body),
        e.seal(before, seq, at + 1, body),
        e.seal(before, seq, at, body + b"\0"),
    }
    assert len(seals) == 5
