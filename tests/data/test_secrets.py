"""Secrets and personal data: what is one is found, what only looks like one is not."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.data.secrets import GROUPS, KINDS, count, find, kinds_of, mask

RANDOM = random.Random(5)
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"


def drawn(length: int) -> str:
    """Letters and digits that no scanner of this repository can take for a real key."""
    return "".join(RANDOM.sample(LETTERS, 20)) + "".join(RANDOM.choices(LETTERS, k=length - 20))


PEM = "-----BEGIN {0}PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END {0}PRIVATE KEY-----"
ENCRYPTED = PEM.format("EC ").replace("MIIEow", "Proc-Type: 4,ENCRYPTED\n\nMIIEow")
FOUND = {
    "private_key": [
        PEM.format(""),
        PEM.format("RSA "),
        ENCRYPTED,
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
    "api_key": [
        f"sk-{drawn(48)}",
        f"sk-proj-{drawn(40)}",
        f"sk-ant-api03-{drawn(60)}",
        f"ghp_{drawn(36)}",
        f"github_pat_{drawn(70)}",
        f"glpat-{drawn(20)}",
        "AKIA" + "Q3EGRM7WXU5TB2NZ",
        f"AIza{drawn(35)}",
        f"xoxb-{drawn(24)}",
        "sk" + f"_live_{drawn(24)}",
        f"hf_{drawn(34)}",
        f"npm_{drawn(36)}",
        f"SG.{drawn(22)}.{drawn(43)}",
    ],
    "jwt": [f"eyJ{drawn(30)}.eyJ{drawn(40)}.{drawn(43)}"],
    "email": ["ann@firma.de", "a.b+c@sub.uni-x.ac.uk", "O_Neil99@GMAIL.com"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO93 8601 1117 947"],
    "credit_card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"],
    "phone": ["+49 30 901820", "+1 (212) 867-5309", "(212) 867-5309", "0049 30 901820"],
    "ip_address": ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111"],
}

NOTHING = [
    "on 2024-03-05 at 12:30:45, 05.03.2024, 3/5/24, 2024-03-05T10:11:12.123456Z",
    "1.234.567,89 EUR, 12,345,678.90 USD, 1 234 567 CHF, ¥1,000,000",
    "order 4111111111111112, invoice 12345678901234567890, ISBN 978-3-16-148410-0",
    "version 1.2.3.4, 127.0.0.1, 192.168.0.1, 10.0.0.7, 203.0.113.9, 999.1.1.1, §1.2.3.4",
    "name@example.com, you@mail.example.org, me@host.test, @handle, a@b, price@5.00",
    "sk-your-api-key-goes-right-here, ghp_" + "x" * 36 + ", AKIA" + "X" * 16,
    "DE89 3704 0044 0532 0130 01, AB12 3456 7890 1234 5678, ID12 3456",
    "call 12345678, extension 4711, 555-0123, 212-555-0123, 1+49+30+901820, 0x1234567890abcdef",
    "0.12345678901234567, 3.14159265358979, 1e-10, 00:1B:44:11:3A:B7, a::b, std::vector<int>::it",
    "550e8400-e29b-41d4-a716-446655440000, e3b0c44298fc1c149afbf4c8996fb92427ae41e4",
    "eyJ.eyJ.x, -----BEGIN PUBLIC KEY-----, -----BEGIN CERTIFICATE-----",
]


@pytest.mark.parametrize(
    ("kind", "text"), [(k, text) for k, all_ in FOUND.items() for text in all_]
)
def test_it_is_found_in_a_sentence_at_its_very_place(kind: str, text: str) -> None:
    for before, after in (("Use ", " for it."), ("(", ")"), ('{"value":"', '"}'), ("", "")):
        (found,) = find(before + text + after)
        assert found.kind == kind
        assert (found.start, found.end) == (len(before), len(before) + len(text))


@pytest.mark.parametrize("text", NOTHING)
def test_dates_amounts_numbers_and_examples_are_nobodys(text: str) -> None:
    assert [(each.kind, text[each.start : each.end]) for each in find(text)] == []


@given(st.integers(10**11, 10**16), st.sampled_from(["{}", "{:,}", "No. {}", "{} EUR", "#{}"]))
def test_of_random_numbers_only_those_with_a_card_checksum_are_cards(
    number: int, form: str
) -> None:
    digits = [int(digit) for digit in str(number)]
    doubled = [2 * d - 9 * (d > 4) if place % 2 else d for place, d in enumerate(reversed(digits))]
    if sum(doubled) % 10:
        assert find(form.format(number)) == []


def test_a_mask_is_consistent_in_a_row_and_keeps_the_rest() -> None:
    messages = [
        {"role": "user", "content": "Write to ann@firma.de and bob@firma.de (not ANN@firma.de)."},
        {"role": "assistant", "content": "ann@firma.de it is; her phone is +49 30 901820."},
    ]
    masked, counts = mask(messages, ("email",))
    assert masked == [
        {"role": "user", "content": "Write to [EMAIL] and [EMAIL_2] (not [EMAIL])."},
        {"role": "assistant", "content": "[EMAIL] it is; her phone is +49 30 901820."},
    ]
    assert counts == {"email": 4}
    assert count(masked) == {"phone": 1}


def test_the_arguments_of_a_tool_call_stay_json() -> None:
    arguments = json.dumps({"card": 4111111111111111, "to": ["ann@firma.de"], "n": 3, "ok": True})
    call = {"function": {"name": "pay", "arguments": arguments}}
    masked, counts = mask({"tool_calls": [call]}, KINDS)
    (after,) = masked["tool_calls"]
    assert json.loads(after["function"]["arguments"]) == {
        "card": "[CREDIT_CARD]",
        "to": ["[EMAIL]"],
        "n": 3,
        "ok": True,
    }
    assert counts == {"credit_card": 1, "email": 1}
    assert list(after["function"]) == ["name", "arguments"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_what_holds_nothing_is_left_as_it_was(value: Any) -> None:
    masked, counts = mask(value, KINDS)
    assert masked == value or counts


@given(st.lists(st.sampled_from([t for each in FOUND.values() for t in each]), max_size=4))
def test_what_is_masked_is_no_longer_found(texts: list[str]) -> None:
    masked, counts = mask(" , ".join(texts), KINDS)
    assert count(masked) == {}
    assert counts.total() == len(texts)


def test_groups_and_kinds_are_named() -> None:
    assert set(kinds_of(["secrets", "personal"])) == set(KINDS)
    assert kinds_of(["email", "email"]) == ("email",)
    assert kinds_of([]) == ()
    assert set(kinds_of(["secrets"])) == set(GROUPS["secrets"])
    with pytest.raises(ValueError, match="no kind of data called 'names'"):
        kinds_of(["names"])


@pytest.mark.parametrize(
    "text",
    [
        *("0" * 200_000, "a.b" * 60_000 + "@", "sk-" + "a-" * 60_000, "+1" + " 1" * 60_000),
        *("1:" * 60_000, "-----BEGIN PRIVATE KEY-----" * 2_000, "DE00 " * 40_000, "eyJ" * 60_000),
    ],
    ids=["digits", "email", "key", "phone", "address", "pem", "iban", "jwt"],
)
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    find(text)
    assert time.process_time() - started < 3
