"""Profile: who a customer is for an invoice, and in which language it is written.

Filed as ``profile/<tenant>``, a new revision a change. Only what an invoice needs stands here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from avocado.billing import vat_id
from avocado.billing.countries import checked_country
from avocado.errors import Refused
from avocado.ledger.operation import AnyOperation, AnyResult, File

if TYPE_CHECKING:
    from avocado.ledger.reader import Reader

KIND: Final = "profile"
Language = Literal["de", "en", "es", "fr", "zh"]
LANGUAGES: Final = ("de", "en", "es", "fr", "zh")
EInvoice = Literal["none", "factur-x", "xml"]
"""What a customer wishes besides the PDF: nothing, XML inside the PDF, or XML as a file."""

_TEXT: Final = 200
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


class Profile(msgspec.Struct, frozen=True):
    """What the customer told us. Empty texts and None mean that it did not."""

    company: str = ""
    """The legal name on invoices; without it the name in the ledger stands there."""
    contact: str = ""
    address: tuple[str, ...] = ()
    """Street and what else stands above the town, at most four lines."""
    postcode: str = ""
    city: str = ""
    region: str = ""
    """State or province, where taxes or addresses need one."""
    country: str = ""
    """ISO 3166, two capital letters."""
    vat_id: str | None = None
    """In compact form with its country, such as ``DE136695976``; format and checksum are right."""
    vies: str | None = None
    """How a person checked the VAT id with the tax office, such as VIES' consultation number."""
    email: str = ""
    """Where invoices go."""
    language: Language = "en"
    e_invoice: EInvoice = "factur-x"
    reference: str = ""
    """The customer's own: a purchase order, or a Leitweg-ID (EN 16931 BT-10)."""


def profile_id(tenant: str) -> str:
    return f"profile/{tenant}"


def profile_of(reader: Reader, tenant: str) -> Profile:
    """The newest profile of a customer; an empty one if none was ever filed."""
    found = reader.document(profile_id(tenant))
    return Profile() if found is None else msgspec.convert(found.content, Profile)


def checked(profile: Profile) -> Profile:
    """The profile in its normal form.

    Raises:
        Refused: a country, VAT id, e-mail address or text that cannot be right; all are named.
    """
    wrong: list[str] = []
    country = ""
    try:
        country = checked_country(profile.country)
    except Refused as refused:
        wrong += refused.reasons
    if profile.email and not _EMAIL.fullmatch(profile.email):
        wrong.append(f"{profile.email!r} is no e-mail address")
    wrong += _long(profile)
    number = None
    if profile.vat_id and not wrong:
        try:
            number = vat_id.checked(profile.vat_id, country)
        except Refused as refused:
            wrong += refused.reasons
    if wrong:
        raise Refused(*wrong)
    return msgspec.structs.replace(profile, country=country, vat_id=number)


def _long(profile: Profile) -> list[str]:
    wrong = [] if len(profile.address) <= 4 else ["an address has at most four lines"]
    texts = {name: getattr(profile, name) for name in profile.__struct_fields__}
    texts |= {f"address line {n}": line for n, line in enumerate(profile.address, 1)}
    for name, text in texts.items():
        if isinstance(text, str) and (len(text) > _TEXT or not text.isprintable()):
            wrong.append(f"{name}: at most {_TEXT} printable characters")
    return wrong


def change_profile(
    reader: Reader,
    do: Callable[[AnyOperation], AnyResult],
    tenant: str,
    changes: dict[str, Any],
    actor: str,
) -> Profile:
    """Files the profile with ``changes`` (by field) as its next revision; returns it. What changes
    nothing is not filed.

    Raises:
        Refused: see :func:`checked`, or somebody else changed it at this moment.
        UnknownCustomer: there is no such customer.
    """
    reader.customer(tenant)
    found = reader.document(profile_id(tenant))
    before = Profile() if found is None else msgspec.convert(found.content, Profile)
    after = checked(msgspec.structs.replace(before, **changes))
    if found is not None and after == before:
        return after
    do(
        File(
            id=profile_id(tenant),
            kind=KIND,
            tenant=tenant,
            content=msgspec.to_builtins(after),
            revision=1 if found is None else found.revision + 1,
            actor=actor,
        )
    )
    return after
