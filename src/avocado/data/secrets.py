"""Secrets and personal data in training text, found by pattern: counted, and masked on request.

A model repeats what it was trained on, so a key or an address in its data is one that it may tell a
stranger. Numbers with a checksum must pass it (Luhn for cards, ISO 7064 MOD 97-10 for IBANs), keys
must have the form that their issuer gives them, and what RFC 2606 or RFC 5737 reserve for examples
is no one's: a date, an amount or an order number is not called personal. Finds patterns, no names.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

SECRETS: Final = ("private_key", "api_key", "jwt")
PERSONAL: Final = ("email", "iban", "credit_card", "phone", "ip_address")
KINDS: Final = (*SECRETS, *PERSONAL)
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {"secrets": SECRETS, "personal": PERSONAL}


@dataclass(frozen=True, slots=True)
class Finding:
    """``text[start:end]`` looks like a ``kind`` of secret or personal data."""

    kind: str
    start: int
    end: int


def kinds_of(names: Collection[str]) -> tuple[str, ...]:
    """The kinds that ``names`` mean: a kind, ``secrets``, ``personal``.

    Raises:
        ValueError: an unknown name.
    """
    wanted: set[str] = set()
    for name in names:
        if name not in GROUPS and name not in KINDS:
            known = ", ".join((*GROUPS, *KINDS))
            raise ValueError(f"mask: there is no kind of data called {name!r} (known: {known})")
        wanted.update(GROUPS.get(name, (name,)))
    return tuple(kind for kind in KINDS if kind in wanted)


def find(text: str) -> list[Finding]:
    """What is in ``text``, in order; where two overlap, the one that is listed first in KINDS."""
    found: list[Finding] = []
    for kind in _suspected(text):
        for match in _PATTERNS[kind].finditer(text):
            start, end = match.span()
            if _HOLDS[kind](match) and not any(f.start < end and start < f.end for f in found):
                found.append(Finding(kind, start, end))
    return sorted(found, key=lambda each: each.start)


def count(value: Any) -> Counter[str]:
    """How often each kind stands in the strings of a JSON value."""
    return Counter(each.kind for text in _strings(value) for each in find(text))


def mask(value: Any, kinds: Collection[str]) -> tuple[Any, Counter[str]]:
    """A JSON value in which each finding of ``kinds`` reads ``[EMAIL]``, ``[IBAN]``, …; how many.

    Within one value the same finding gets the same mask everywhere and another one of its kind
    ``[EMAIL_2]``, so an answer still speaks of what was asked. The arguments of a tool call stay
    JSON. Keys are left as they are.
    """
    masks = _Masks(frozenset(kinds))
    masked = masks.within(value)
    return masked, masks.counts


class _Masks:
    """The masks of one row: the same text, the same mask."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self.counts: Counter[str] = Counter()
        self._names: dict[tuple[str, str], str] = {}
        self._of_kind: Counter[str] = Counter()

    def within(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            if isinstance(value.get("arguments"), str):
                return {**self.within({**value, "arguments": None}), **self._arguments(value)}
            return {key: self.within(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.within(inner) for inner in value]
        return value

    def text(self, text: str) -> str:
        parts, end = [], 0
        for each in find(text):
            if each.kind in self.kinds:
                parts += [
                    text[end : each.start],
                    self._name(each.kind, text[each.start : each.end]),
                ]
                end = each.end
        return "".join([*parts, text[end:]]) if parts else text

    def _arguments(self, call: Mapping[str, Any]) -> dict[str, str]:
        """A number in a tool call's JSON becomes a string when it is masked."""
        text = str(call["arguments"])
        before = self.counts.copy()
        masked = self.text(text)
        if masked != text and _is_json(text) and not _is_json(masked):
            self.counts = before
            masked = json.dumps(self._numbers(json.loads(text)), ensure_ascii=False)
        return {"arguments": masked}

    def _numbers(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._numbers(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._numbers(inner) for inner in value]
        if isinstance(value, str | int) and not isinstance(value, bool):
            masked = self.text(str(value))
            return value if masked == str(value) else masked
        return value

    def _name(self, kind: str, found: str) -> str:
        key = kind, re.sub(r"[\s().-]", "", found).casefold()
        if key not in self._names:
            self._of_kind[kind] += 1
            number = self._of_kind[kind]
            self._names[key] = f"[{kind.upper()}]" if number == 1 else f"[{kind.upper()}_{number}]"
        self.counts[kind] += 1
        return self._names[key]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


_IBAN_LENGTHS: Final = {
    **{15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK"},
    **{21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL"},
    **{24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR"},
    **{27: "BI FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA"},
    **{30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU"},
}
"""Characters of an IBAN by country (the registry of ISO 13616)."""

_PATTERNS: Final[Mapping[str, re.Pattern[str]]] = {
    "private_key": re.compile(
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:(?!-----)[\s\S]){0,20000}-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)?"
    ),
    "api_key": re.compile(
        r"(?<![\w-])(?:"
        r"A(?:KIA|SIA)[0-9A-Z]{16}"  # AWS
        r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{50,255}|glpat-[\w-]{20,64}"
        r"|sk-(?:[a-z]{2,10}\d*-){0,3}[A-Za-z0-9_-]{20,200}"  # OpenAI, Anthropic
        r"|[rs]k_(?:live|test)_[0-9A-Za-z]{16,128}|whsec_[0-9A-Za-z]{24,64}"  # Stripe
        r"|AIza[\w-]{35}|ya29\.[\w-]{30,300}"  # Google
        r"|xox[abeoprs]-[0-9A-Za-z-]{10,250}"  # Slack
        r"|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,255}|dop_v1_[0-9a-f]{64}"
        r"|SG\.[\w-]{16,32}\.[\w-]{32,64}"  # SendGrid
        r")(?![\w-])"
    ),
    "jwt": re.compile(r"(?<![\w.-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}(?![\w-])"),
    "email": re.compile(
        r"(?<![\w.+%-])[A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+){0,8}"
        r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}[A-Za-z]{2,24}(?![\w-])"
    ),
    "phone": re.compile(
        r"(?<![\w+.,/-])(?<!\d )(?:"
        r"(?:\+[1-9]\d{0,2}|00[1-9]\d{0,2}[ /-])(?:[ ./-]?\(\d{1,4}\))?"  # E.164
        r"(?:[ ./-]?\d{1,5}){2,6}"
        r"|\(\d{3}\) ?\d{3}-\d{4}|[2-9]\d{2}-[2-9]\d{2}-\d{4}"  # North America
        r")(?![\w/-])"
    ),
    "credit_card": re.compile(r"(?<![\w.,+-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w-]|[.,]\d)"),
    "iban": re.compile(
        r"(?<!\w)(?:"
        + "|".join(
            rf"(?:{countries.replace(' ', '|')})\d\d(?: ?[A-Z0-9]){{{length - 4}}}"
            for length, countries in _IBAN_LENGTHS.items()
        )
        + r")(?!\w)"
    ),
    "ip_address": re.compile(
        r"(?<![\w.:/-])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4})"
        r"(?::[0-9A-Fa-f]{1,4}){0,5})(?![\w:]|\.\d)"
    ),
}

_KEY_SIGNS: Final = (
    *("AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "sk-"),
    *("k_live_", "k_test_", "whsec_", "AIza", "ya29.", "xox", "hf_", "npm_", "pypi-", "dop_v1_"),
    "SG.",
)
_DIGITS: Final = re.compile(r"\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d")
_VERSION: Final = re.compile(r"(?:version|release|firmware|build|v|§|section)\s*$", re.IGNORECASE)


def _suspected(text: str) -> Iterator[str]:
    """The kinds that are worth their pattern, by signs that are cheap to look for."""
    if "PRIVATE KEY" in text:
        yield "private_key"
    if any(sign in text for sign in _KEY_SIGNS):
        yield "api_key"
    if "eyJ" in text:
        yield "jwt"
    if "@" in text:
        yield "email"
    if _DIGITS.search(text):
        yield from ("iban", "credit_card", "phone")
    if text.count(".") >= 3 or text.count(":") >= 3:
        yield "ip_address"


def _key_holds(match: re.Match[str]) -> bool:
    """``sk-your-key-here`` and ``ghp_xxxxxxxx…`` are nobody's."""
    tail = match[0][4:]
    return len(set(tail)) >= 10 and any(c.isdigit() for c in tail) and any(map(str.isalpha, tail))


def _email_holds(match: re.Match[str]) -> bool:
    """Domains that RFC 2606 reserves for examples belong to nobody."""
    host = match[0].rpartition("@")[2].lower()
    if host.rpartition(".")[2] in ("example", "test", "invalid", "localhost"):
        return False
    return not re.search(r"(?:^|\.)example\.(?:com|net|org)$", host)


def _phone_holds(match: re.Match[str]) -> bool:
    """E.164 has at most 15 digits; 555-0100 to 555-0199 are reserved for fiction."""
    digits = re.sub(r"\D", "", match[0]).removeprefix("00")
    return 8 <= len(digits) <= 15 and not re.search(r"55501\d\d$", digits)


def _card_holds(match: re.Match[str]) -> bool:
    """An issuer's length and first digits, and Luhn's checksum (ISO/IEC 7812-1)."""
    digits = re.sub(r"\D", "", match[0])
    lengths = (
        (r"3[47]", (15,)),
        (r"4", (13, 16, 19)),
        (r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)", (16,)),
        (r"6(?:011|5|4[4-9])", (16, 19)),
        (r"62", (16, 17, 18, 19)),
        (r"35(?:2[89]|[3-8])", (16,)),
        (r"3(?:0[0-5]|[68])", (14,)),
    )
    if not any(re.match(first, digits) and len(digits) in each for first, each in lengths):
        return False
    doubled = [int(d) * (2 if place % 2 else 1) for place, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def _iban_holds(match: re.Match[str]) -> bool:
    """ISO 13616: moved, letters as numbers, modulo 97 is 1."""
    code = match[0].replace(" ", "")
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _address_holds(match: re.Match[str]) -> bool:
    """Public addresses only: private, local and documentation ranges are nobody's."""
    if _VERSION.search(match.string[max(0, match.start() - 12) : match.start()]):
        return False
    try:
        return ipaddress.ip_address(match[0]).is_global
    except ValueError:
        return False


_HOLDS: Final[Mapping[str, Callable[[re.Match[str]], bool]]] = {
    "private_key": lambda match: True,
    "api_key": _key_holds,
    "jwt": lambda match: True,
    "email": _email_holds,
    "phone": _phone_holds,
    "credit_card": _card_holds,
    "iban": _iban_holds,
    "ip_address": _address_holds,
}
