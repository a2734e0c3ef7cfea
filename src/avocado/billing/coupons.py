"""Coupons on record: creating them, redeeming them once a customer, never more than they allow.

The count of redemptions stands in the coupon's own document, whose revisions are its lock: of two
customers at once one gets the next revision and the other reads again. A revision names who took
the place, so whoever comes next first files a redemption that its owner did not live to file.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from avocado.billing.coupon import Coupon, Discount, Redemption, refusal
from avocado.billing.dates import day_of, later, start_of
from avocado.billing.record import ATTEMPTS, Do, Stored, busy, file, read
from avocado.billing.subscription import Subscription
from avocado.errors import Refused
from avocado.ledger.operation import Grant
from avocado.ledger.reader import Reader


def create(reader: Reader, do: Do, coupon: Coupon, actor: str = "") -> Coupon:
    """Puts a coupon on record.

    Raises:
        Refused: its code is taken.
    """
    taken = read(reader, f"coupon/{coupon.code}", Coupon) is not None
    if taken or not file(do, f"coupon/{coupon.code}", "coupon", "", coupon, 1, actor):
        raise Refused(f"there is a coupon {coupon.code} already: take another code")
    return coupon


def coupons(reader: Reader) -> Iterator[Coupon]:
    """All of them, in the order in which they were made."""
    for document in list(reader.documents("coupon")):
        yield msgspec.convert(document.content, Coupon)


def redeem(reader: Reader, do: Do, code: str, tenant: str, now: int) -> Redemption:
    """Redeems a code for a customer. Credit is there at once; what takes something off fees waits
    for the next one.

    Raises:
        Refused: there is no such coupon, it is not in force or used up, or the customer had it.
        UnknownCustomer: there is no such customer.
    """
    customer = reader.customer(tenant)
    found = read(reader, f"subscription/{tenant}", Subscription)
    plan = found.value.plan if found is not None and found.value.entitled else None
    for _ in range(ATTEMPTS):
        stored = read(reader, f"coupon/{code}", Coupon)
        if stored is None:
            raise Refused(f"there is no coupon {code!r}")
        _file_newest(do, stored.value)
        if (had := _redemption(reader, code, tenant)) is not None:
            _give(do, stored.value, had)  # its owner may have died before
            raise Refused(f"{tenant} has redeemed {code} already, on {day_of(had.at)}")
        if reason := refusal(stored.value, day_of(now), customer.currency, plan):
            raise Refused(reason)
        taken = msgspec.structs.replace(
            stored.value, taken=stored.value.taken + 1, last=tenant, at=now
        )
        if file(do, f"coupon/{code}", "coupon", "", taken, stored.revision + 1):
            made = _file_newest(do, taken)
            assert made is not None
            _give(do, taken, made)
            return made
    raise busy(f"the coupon {code}")


def _redemption(reader: Reader, code: str, tenant: str) -> Redemption | None:
    stored: Stored[Redemption] | None = read(reader, f"redemption/{code}/{tenant}", Redemption)
    return None if stored is None else stored.value


def _file_newest(do: Do, coupon: Coupon) -> Redemption | None:
    """Files the redemption that the coupon's newest revision names; done twice it is once."""
    if not coupon.last:
        return None
    made = Redemption(coupon.code, coupon.last, coupon.taken, coupon.at)
    file(do, f"redemption/{coupon.code}/{coupon.last}", "redemption", coupon.last, made, 1)
    return made


def _give(do: Do, coupon: Coupon, redemption: Redemption) -> None:
    """A credit coupon's credit, under an id that makes it one."""
    if coupon.kind != "credit":
        return
    ends = None
    if coupon.days is not None:
        ends = start_of(later(day_of(redemption.at), coupon.days))
    do(
        Grant(
            id=f"redemption/{coupon.code}/{redemption.tenant}",
            tenant=redemption.tenant,
            amount=coupon.value,
            currency=coupon.currency,
            reason=f"coupon {coupon.code}",
            expires=ends,
        )
    )


def discounts(reader: Reader, tenant: str) -> list[Discount]:
    """What a customer's redeemed coupons take off fees, in the order of redemption."""
    found = []
    for document in list(reader.documents("redemption", tenant)):
        redemption = msgspec.convert(document.content, Redemption)
        stored = read(reader, f"coupon/{redemption.code}", Coupon)
        if stored is not None and stored.value.kind != "credit":
            each = stored.value
            found.append(Discount(each.code, each.kind, each.value, each.periods, each.plans))
    return found
