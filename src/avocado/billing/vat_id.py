"""VAT identification numbers: format and checksum, by ``python-stdnum``.

Whether a number is assigned to the company that gives it only the tax offices know: the European
Commission's VIES service (https://ec.europa.eu/taxation_customs/vies) says so. It is not asked
here; a person asks it and notes the consultation number in the profile.
"""

from __future__ import annotations

from typing import Final

from avocado.errors import Refused

EU: Final = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()
)
"""The 27 member states, ISO 3166 (source: https://european-union.europa.eu, read 2026-11)."""

_PREFIX: Final = {"GR": "EL"}
"""Where a VAT number begins with other letters than the country's ISO code (Art. 215)."""


def prefix_of(country: str) -> str:
    return _PREFIX.get(country, country)


def checked(text: str, country: str) -> str:
    """The number in compact form, with its country in front: ``DE136695976``.

    ``country`` (ISO 3166) is where the customer is established; the number must be of it. Numbers
    of countries outside the EU are checked where stdnum knows them, and else taken as given.

    Raises:
        Refused: no country is known, or the number is of another one, malformed, or its checksum is
            wrong.
    """
    if not country:
        raise Refused(f"VAT id {text!r}: say the country too, such as --country DE")
    if country in EU:
        return _european(text, country)
    try:
        from stdnum import get_cc_module
        from stdnum.exceptions import ValidationError
    except ModuleNotFoundError as error:
        raise _missing() from error
    module = get_cc_module(country.lower(), "vat")
    if module is None:
        return text.strip()
    try:
        return str(module.validate(text))
    except ValidationError as error:
        raise Refused(f"VAT id {text!r} is none of {country}: {error}") from error


def _european(text: str, country: str) -> str:
    try:
        from stdnum.eu import vat
        from stdnum.exceptions import ValidationError
    except ModuleNotFoundError as error:
        raise _missing() from error
    prefix = prefix_of(country)
    compact = "".join(c for c in text.upper() if c.isalnum())
    if compact[:2].isalpha() and compact[:2] in {prefix_of(each) for each in EU} - {prefix}:
        raise Refused(
            f"VAT id {text!r} is of {compact[:2]}, and the customer's country is {country}"
        )
    if not compact.startswith(prefix):
        compact = prefix + compact
    try:
        return str(vat.validate(compact))
    except ValidationError as error:
        raise Refused(
            f"VAT id {text!r} is no number of {country}: {str(error).rstrip('.').lower()}"
        ) from error


def _missing() -> Refused:
    return Refused("checking a VAT id needs python-stdnum: pip install 'avocado-llm[billing]'")
