"""Countries that a profile may name: ISO 3166-1 alpha-2, with those that people take for it.

The codes were compared with Unicode's CLDR (2026-11). Kosovo's XK is a user-assigned code that
ISO leaves to its users and everybody uses.
"""

from __future__ import annotations

from typing import Final

from avocado.errors import Refused

COUNTRIES: Final = frozenset(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR
    BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ
    EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW
    GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY
    KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV
    MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY
    QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG
    TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM
    ZW XK
    """.split()
)

_MEANT: Final = {"UK": "GB", "EL": "GR", "EU": "", "XI": "GB"}
"""Greece's VAT numbers begin with EL, and Northern Ireland's with XI: neither is the country."""


def checked_country(text: str) -> str:
    """The code in capitals; an empty text stays one.

    Raises:
        Refused: it is no country. Taken for one, it would lie outside the EU and be taxed so.
    """
    code = text.strip().upper()
    if not code or code in COUNTRIES:
        return code
    meant = _MEANT.get(code, "")
    write = meant or "two letters such as DE"
    raise Refused(f"{text!r} is no country: write {write} (ISO 3166)")
