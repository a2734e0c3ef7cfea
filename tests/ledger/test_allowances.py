"""Included tokens: reserved with the hold, used before money, never twice, gone with their time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avocado.ledger import entry as e
from avocado.ledger import errors
from avocado.ledger import operation as o
from avocado.ledger.views import Allowance
from avocado.terms.price import MILLION, PriceSheet
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ledger.conftest import Desk

SECOND = 10**9
CEILING = 100 * 200 + 500 * 800  # of 600 tokens
CHARGE = 100 * 200 + 200 * 800  # of 300 tokens


def allow(
    desk: Desk, id_: str = "plan", tokens: int = 1000, seconds: int | None = None, **changes: Any
) -> o.Allowed:
    expires = None if seconds is None else desk.clock.now() + seconds * SECOND
    tenant = changes.pop("tenant", "acme")
    allowed: o.Allowed = desk.do(
        o.Allow(id=id_, tenant=tenant, tokens=tokens, expires=expires, **changes)
    )
    return allowed


def lots(desk: Desk, tenant: str = "acme") -> dict[str, Allowance]:
    with desk.reader as reader:
        found = reader.allowances(tenant)
    for lot in found:
        assert lot.tokens == lot.left + lot.reserved + lot.used + lot.expired
    return {lot.id: lot for lot in found}


def left(desk: Desk) -> dict[str, tuple[int, int, int, int]]:
    """(left, reserved, used, expired) of each lot."""
    return {
        name: (lot.left, lot.reserved, lot.used, lot.expired) for name, lot in lots(desk).items()
    }


def test_tokens_are_used_before_money(desk: Desk) -> None:
    desk.setup(money=5)
    assert allow(desk).left == 1000
    held = desk.hold("r1")
    assert (held.amount, held.available) == (0, 5)
    assert left(desk) == {"plan": (400, 600, 0, 0)}
    settled = desk.settle("r1")
    assert (settled.charge, settled.covered, settled.available) == (0, 300, 5)
    assert [(line.kind, line.tokens, line.price) for line in settled.lines] == [
        ("prompt", 100, 0),
        ("completion", 200, 0),
    ]
    assert left(desk) == {"plan": (700, 0, 300, 0)}
    with desk.reader as reader:
        (charge,) = reader.charges("acme")
    assert (charge.charge, charge.covered) == (0, 300)
    assert desk.broken() == []


def test_money_pays_what_tokens_do_not_cover(desk: Desk) -> None:
    desk.setup(money=CEILING)
    allow(desk, tokens=150)
    held = desk.hold("r1")
    assert held.amount == 450 * 800
    settled = desk.settle("r1")
    assert (settled.charge, settled.covered) == (150 * 800, 150)
    assert [(line.kind, line.tokens, line.nanos) for line in settled.lines] == [
        ("prompt", 100, 0),
        ("completion", 50, 0),
        ("completion", 150, 150 * 800),
    ]
    again = desk.settle("r1")
    assert (again.replayed, again.lines, again.covered) == (True, settled.lines, 150)
    assert left(desk) == {"plan": (0, 0, 150, 0)}
    assert desk.available() == CEILING - 150 * 800
    assert desk.broken() == []


def test_too_little_of_both_is_refused_and_reserves_nothing(desk: Desk) -> None:
    desk.setup(money=10)
    allow(desk, tokens=599)
    refusal = desk.refused(desk.request())
    assert (refusal.code, refusal.fields()) == (
        "insufficient_funds",
        {"available": 10, "needed": 800},
    )
    assert left(desk) == {"plan": (599, 0, 0, 0)}
    assert desk.broken() == []


def test_a_void_gives_all_tokens_back(desk: Desk) -> None:
    desk.setup()
    allow(desk)
    desk.hold("r1")
    desk.do(o.Void(hold="r1", reason="failed"))
    assert left(desk) == {"plan": (1000, 0, 0, 0)}
    assert desk.broken() == []


def test_lots_are_used_by_priority_then_soonest_end(desk: Desk) -> None:
    desk.setup(money=CEILING)
    allow(desk, "forever", 100)
    allow(desk, "later", 100, seconds=200)
    allow(desk, "soon", 100, seconds=100)
    allow(desk, "first", 50, priority=-1)
    allow(desk, "last", 50, seconds=50, priority=1)
    desk.hold("r1", max_tokens=200)  # 300 tokens
    assert {name: lot.reserved for name, lot in lots(desk).items()} == {
        "forever": 50,
        "later": 100,
        "soon": 100,
        "first": 50,
        "last": 0,
    }
    desk.settle("r1", prompt=100, completion=20)
    assert {name: lot.used for name, lot in lots(desk).items() if lot.used} == {
        "first": 50,
        "soon": 70,
    }
    assert desk.broken() == []


def test_a_lot_serves_its_offers_only(desk: Desk) -> None:
    desk.setup(money=CEILING)
    allow(desk, "pro", 1000, offers=("avocado-2", "avocado-3"))
    assert desk.hold("r1").amount == CEILING
    desk.settle("r1", completion=0)
    assert desk.hold("r2", offer="avocado-3").amount == 0
    assert desk.broken() == []


def test_free_requests_leave_an_allowance_alone(desk: Desk) -> None:
    desk.setup()
    allow(desk)
    free = PriceSheet(0, 0)
    desk.do(o.PublishPrice(terms=free.terms()))
    desk.hold("r1", price_version=free.version)
    assert desk.settle("r1").covered == 0
    assert left(desk) == {"plan": (1000, 0, 0, 0)}
    assert desk.broken() == []


def test_spend_limits_count_money_only(desk: Desk) -> None:
    desk.setup(money=CEILING)
    desk.do(o.SetSpendLimit(tenant="acme", total=80))
    allow(desk, tokens=1300)
    for id_ in ("r1", "r2"):
        desk.hold(id_)
    assert desk.hold("r3", max_tokens=0).amount == 0
    assert desk.refused(desk.request(prompt_tokens=1, max_tokens=1)).code == "spend_limit_reached"
    assert desk.broken() == []


def test_tiers_count_covered_tokens_too(desk: Desk) -> None:
    desk.setup(money=10 * CEILING)
    tiered = PriceSheet(200_000_000, 800_000_000, tiers=((300, MILLION // 2),))
    desk.do(o.PublishPrice(terms=tiered.terms()))
    allow(desk, tokens=600)
    desk.hold("r1", price_version=tiered.version)
    desk.settle("r1")
    desk.do(o.EndAllowance(id="plan", reason="downgrade"))
    assert desk.hold("r2", price_version=tiered.version).amount == CEILING // 2
    assert desk.broken() == []


def test_tokens_go_with_their_time(desk: Desk) -> None:
    desk.setup(money=CEILING)
    allow(desk, tokens=700, seconds=10)
    desk.hold("r1")
    desk.clock.pass_time(10 * SECOND)
    assert desk.hold("r2").amount == CEILING
    assert left(desk) == {"plan": (0, 600, 0, 100)}
    desk.settle("r1")  # reserved in time, so still good
    desk.settle("r2")
    desk.clock.pass_time(100 * SECOND)
    desk.deposit(1)  # wakes the writer, which looks after what is overdue once a minute
    desk.deposit(1)
    assert left(desk) == {"plan": (0, 0, 300, 400)}
    assert desk.broken() == []


def test_an_allowance_can_be_ended(desk: Desk) -> None:
    desk.setup(money=CEILING)
    allow(desk, tokens=700, seconds=10**6)
    desk.hold("r1")
    ended = o.EndAllowance(id="plan", reason="plan changed", actor="ops")
    assert desk.do(ended).left == 0
    assert desk.do(ended).replayed
    assert allow(desk, tokens=700, seconds=10**6).replayed
    assert desk.hold("r2").amount == CEILING
    desk.settle("r1")
    desk.settle("r2")
    assert desk.hold("r3", max_tokens=0).amount == 20_000
    desk.clock.pass_time(100 * SECOND)
    desk.deposit(1)
    desk.deposit(1)
    assert left(desk) == {"plan": (0, 0, 300, 400)}
    assert desk.refused(o.EndAllowance(id="nothing", reason="r")).code == "not_allowed"
    assert desk.broken() == []


def test_a_refund_gives_money_back_and_no_tokens(desk: Desk) -> None:
    desk.setup(money=CEILING)
    allow(desk, tokens=150)
    desk.hold("r1")
    desk.settle("r1")
    assert desk.do(o.Refund(id="x", of="r1", reason="slow")).amount == 150 * 800
    assert left(desk) == {"plan": (0, 0, 150, 0)}
    assert desk.available() == CEILING
    assert desk.refused(o.Refund(id="y", of="plan", reason="r")).code == "nothing_to_refund"
    assert desk.broken() == []


def test_orphans_give_back_what_they_did_not_use(desk: Desk) -> None:
    desk.setup()
    allow(desk, tokens=1200)
    desk.hold("silent")
    desk.hold("streaming")
    desk.do(o.Progress(hold="streaming", usage=Usage(100, 20)))
    desk.crash()
    assert (desk.ledger.recovery.settled, desk.ledger.recovery.voided) == (1, 1)
    assert left(desk) == {"plan": (1080, 0, 120, 0)}
    assert desk.broken() == []


def test_usage_that_is_not_believed_keeps_the_tokens_reserved(desk: Desk) -> None:
    desk.setup()
    allow(desk, tokens=600)
    desk.hold("r1")
    assert desk.refused(o.Settle(hold="r1", usage=Usage(101, 1))).code == "usage_beyond_hold"
    assert left(desk) == {"plan": (0, 600, 0, 0)}
    desk.settle("r1")
    assert desk.broken() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tokens": 0}, "not_allowed"),
        ({"tokens": 2**53}, "not_allowed"),
        ({"expires": 1}, "not_allowed"),
        ({"offers": ("a\nb",)}, "not_allowed"),
        ({"tenant": "nobody"}, "unknown_customer"),
        ({"id": ""}, "not_allowed"),
    ],
)
def test_allowances_that_make_no_sense_are_refused(
    file_desk: Desk, changes: dict[str, Any], code: str
) -> None:
    file_desk.setup()
    terms: dict[str, Any] = {"id": "a", "tenant": "acme", "tokens": 5} | changes
    assert file_desk.refused(o.Allow(**terms)).code == code


def test_the_same_allowance_again_is_the_first(desk: Desk) -> None:
    desk.setup(money=CEILING)
    allow(desk, offers=("avocado-1",), reason="plan:pro@3")
    desk.settle(desk.hold("r1").hold)
    again = allow(desk, offers=("avocado-1",), reason="plan:pro@3")
    assert (again.replayed, again.tokens, again.left) == (True, 1000, 700)
    with pytest.raises(errors.IdempotencyConflict):
        allow(desk, tokens=999, offers=("avocado-1",), reason="plan:pro@3")
    assert desk.broken() == []


def test_a_thousand_parallel_requests_use_each_token_once(
    desk: Desk, run: Callable[..., Any]
) -> None:
    desk.setup()
    allow(desk, tokens=600 * 25 + 599)

    async def rush() -> list[Any]:
        asks = (desk.ledger.hold(desk.request(f"r{number}")) for number in range(1000))
        return await asyncio.gather(*asks, return_exceptions=True)

    answers = run(rush())
    assert sum(isinstance(answer, o.Held) for answer in answers) == 25
    assert sum(isinstance(answer, errors.InsufficientFunds) for answer in answers) == 975
    assert left(desk) == {"plan": (599, 600 * 25, 0, 0)}
    assert desk.broken() == []


TOKENS = st.integers(0, 60)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    free=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    requests=st.lists(st.tuples(TOKENS, TOKENS, st.floats(0, 1), st.floats(0, 1)), max_size=8),
)
def test_no_token_is_lost_or_used_twice(
    tmp_path_factory: pytest.TempPathFactory,
    desk_on: Callable[[Any], Desk],
    free: list[int],
    requests: list[tuple[int, int, float, float]],
) -> None:
    desk = desk_on(tmp_path_factory.mktemp("desk") / "book.db")
    desk.setup(money=10**9)
    for number, tokens in enumerate(free):
        allow(desk, f"lot-{number}", tokens)
    used = 0
    for number, (prompt, most, *_) in enumerate(requests):
        desk.hold(f"r{number}", prompt_tokens=prompt, max_tokens=most)
    for number, (prompt, most, one, two) in enumerate(requests):
        done = desk.settle(f"r{number}", int(prompt * one), int(most * two))
        used += done.covered
        assert done.covered <= done.usage.total
    assert sum(lot.used for lot in lots(desk).values()) == used
    assert sum(lot.left for lot in lots(desk).values()) == sum(free) - used
    assert desk.broken() == []
    desk.close()


def test_old_entries_are_encoded_as_they_were() -> None:
    """A field that an entry does not use is not in its JSON: old journals keep their hashes."""
    settled = e.HoldSettled(
        id="r", tenant="acme", usage=Usage(1, 2), finish="stop", charge=3, currency="USD"
    )
    assert e.encode(settled) == (
        b'{"kind":"HoldSettled","id":"r","tenant":"acme","usage":{"prompt":1,"completion":2,'
        b'"cached":0,"reasoning":0},"finish":"stop","charge":3,"currency":"USD"}'
    )
    paid = e.Deposited(id="d", tenant="acme", amount=1, currency="USD", legs=(("a", -1), ("b", 1)))
    assert e.encode(paid) == (
        b'{"kind":"Deposited","id":"d","tenant":"acme","amount":1,"currency":"USD",'
        b'"legs":[["a",-1],["b",1]]}'
    )
