"""Each grade against answers that models really give, in several languages and scripts."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.errors import Refused
from avocado.evaluate.graders import (
    Choice,
    Exact,
    Grade,
    JsonFields,
    JsonValue,
    Judge,
    Numeric,
    Regex,
    Rewarded,
    check_answer,
    grader,
)
from avocado.evaluate.numbers import numbers
from avocado.rewards import Reward


def score(grade: Grade, said: str, expected: str, language: str = "en", **fields: Any) -> float:
    return grader(grade)(said, expected, language, fields).score


@pytest.mark.parametrize(
    ("output", "answer", "same"),
    [
        ('{"b":2,"a":1.0}', '{"a": 1, "b": 2}', True),
        ('  {"a": 1}\n', '{"a":1}', True),
        ('{"a": true}', '{"a": 1}', False),
        ('{"a": "1"}', '{"a": 1}', False),
        ('{"a": 1} ok', '{"a": 1}', False),
        ('{"a": 1, "a": 1}', '{"a": 1}', False),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": NaN}', '{"a": NaN}', True),  # the same text is right whatever it means
        ("{'a': 1}", '{"a": 1}', False),
        ('{"a": 0.1}', '{"a": 0.10000000000000001}', False),
        ("[" * 100_000, "[]", False),
        ("1" * 5000, "[]", False),
        ('{"a": 1e99999999999999999999}', '{"a": 1}', False),
        ("", "[]", False),
    ],
)
def test_json_compares_values(output: str, answer: str, same: bool) -> None:
    assert score(JsonValue(), output, answer) == same
    assert score(Exact(), output, answer) == (output.strip() == answer.strip())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(values, values)
def test_json_comparison_is_equality_of_values(left: Any, right: Any) -> None:
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert score(JsonValue(), json.dumps(left, indent=2), json.dumps(right)) == same


def test_exact_composes_characters_and_ignores_case_only_if_told() -> None:
    assert score(Exact(), " Zu\u0308rich\n", "Z\u00fcrich") == 1
    assert score(Exact(), "ZÜRICH", "Zürich") == 0
    assert score(Exact(ignore_case=True), "STRASSE", "Straße") == 1


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ('{"a": 1, "b": 2, "c": 3, "d": 4}', 1.0),
        ('{"d": 4, "c": 3, "b": 2, "a": 0}', 0.75),
        ('{"a": 1, "b": 2}', 0.5),
        ('{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}', 0.8),  # what was not asked for is an error
        ("[1]", 0.0),
        ("a = 1", 0.0),
    ],
)
def test_json_fields_counts_right_fields(said: str, part: float) -> None:
    expected = '{"a": 1, "b": 2, "c": 3, "d": 4}'
    assert score(JsonFields(), said, expected) == part
    assert grader(JsonFields())(said, expected, "en", {}).correct is None
    whole = grader(JsonFields(partial=False))(said, expected, "en", {})
    assert (whole.score, whole.correct) == (float(part == 1), part == 1)


def test_json_fields_may_look_at_some_fields_only() -> None:
    grade = JsonFields(fields=("a", "b"))
    assert score(grade, '{"a": 1, "b": 0, "note": "hm"}', '{"a": 1, "b": 2, "c": 3}') == 0.5
    assert score(grade, "{}", '{"c": 3}') == 1.0


@pytest.mark.parametrize(
    ("language", "said", "found"),
    [
        ("en", "It costs $1,234.50.", ["1234.5"]),
        ("de", "Das kostet 1.234,50 €.", ["1234.5"]),
        ("de-CH", "Es sind 1’234.50 Franken", ["1234.5"]),
        ("fr", "1 234,5 euros", ["1234.5"]),
        ("fr", "1\u202f234,5\u00a0€", ["1234.5"]),
        ("pl", "12 000", ["12000"]),
        ("es", "3.000", ["3000"]),
        ("es-MX", "3,000.25", ["3000.25"]),
        ("hi", "₹12,34,567.5", ["1234567.5"]),
        ("hi", "१२,३४,५६७", ["1234567"]),
        ("ar", "١٬٢٣٤٫٥", ["1234.5"]),
        ("fa", "۱۲۳", ["123"]),
        ("ja", "１，２３４円", ["1234"]),
        ("zh", "共1,234元", ["1234"]),
        ("zh", "共 1,234 元", ["1234"]),
        ("en", "1.234,5", []),
        ("de", "1,234.5", []),
        ("en", "−5 and -6 and 2e3", ["-5", "-6", "2000"]),
        ("en", "10-12", ["10", "12"]),
        ("en", "version v2 of A4", []),
        ("en", "no number", []),
        ("en", "12345,678", []),
    ],
)
def test_numbers_are_read_as_their_language_writes_them(
    language: str, said: str, found: list[str]
) -> None:
    assert numbers(said, language) == [Decimal(each) for each in found]


def test_numeric_allows_what_it_is_told_to() -> None:
    assert score(Numeric(), "The answer is 42.", "42") == 1
    assert score(Numeric(), "40 or 42", "42") == 0
    assert score(Numeric(pick="last"), "40 + 2 = 42", "42") == 1
    assert score(Numeric(), "0.1", "0.10000000000000001") == 0
    assert score(Numeric(tolerance=0.5), "41.5", "42") == 1
    assert score(Numeric(tolerance=0.5), "41.4", "42") == 0
    assert score(Numeric(relative=0.01), "-99", "-100") == 1
    assert score(Numeric(), "drei", "3", "de") == 0


def test_numeric_knows_units() -> None:
    grade = Numeric(units={"km": 1000, "m": 1, "mm": 0.001})
    assert score(grade, "Das sind 1.500 m.", "1.5 km", "de") == 1
    assert score(grade, "1,5 km", "1500 m", "de") == 1
    assert score(grade, "1500", "1500 m", "de") == 0
    assert score(grade, "1500 miles", "1500 m") == 0, "a longer word is no unit"
    assert score(Numeric(units={"": 1, "%": 0.01}), "0.5", "50 %") == 1


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12
    )
)
def test_every_number_is_read_back_in_every_language(value: Decimal) -> None:
    plain = f"{value:,f}"
    written = {
        "en": plain,
        "de": plain.translate({44: 46, 46: 44}),
        "fr": plain.translate({44: 0x202F, 46: 44}),
    }
    for language, text in written.items():
        assert numbers(f"x: {text}!", language) == [value]


def test_regex_finds_or_matches() -> None:
    find = Regex(pattern=r"####\s*(-?\d+)")
    assert score(find, "so …\n#### 72", "72") == 1
    assert score(find, "72", "72") == 0
    assert score(Regex(), "DE-1234", r"[A-Z]{2}-\d{4}") == 1
    assert score(Regex(), "DE-1234x", r"[A-Z]{2}-\d{4}") == 0


def test_a_pattern_that_backtracks_without_end_is_wrong_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("avocado.evaluate.graders.SECONDS", 0.2)
    assert score(Regex(pattern=r"(\w+\s?)*:(.)"), "word " * 60, "x") == 0


def test_rewards_are_those_of_reinforcement() -> None:
    grade = Rewarded((Reward("exact"), Reward("regex", weight=3, pattern=r"\d+")))
    mark = grader(grade)("7", "8", "en", {})
    assert (mark.score, mark.correct) == (0.75, None)
    by_field = Rewarded((Reward("function", function="tests.evaluate.test_graders:wanted"),))
    assert score(by_field, "abc", "", length=3) == 1.0
    with pytest.raises(Refused, match="cannot be imported"):
        grader(Rewarded((Reward("function", function="nowhere_at_all:f"),)))


def wanted(answer: str, reference: str | None, fields: dict[str, Any]) -> float:
    return float(len(answer) == fields["length"])


@pytest.mark.parametrize(
    ("grade", "answer", "choices", "says"),
    [
        (JsonFields(), "[1]", (), "needs an answer that is a JSON object"),
        (Numeric(), "1.234,5", (), "written plainly, such as 1234.5, not '1.234,5'"),
        (Numeric(), "NaN", (), "written plainly"),
        (Numeric(units={"km": 1}), "5 miles", (), "has none of the units: km"),
        (Regex(), "(", (), "is no regular expression"),
        (Choice(), "a", ("a",), "two texts or more"),
        (Choice(), "a", ("a", "a"), "all different"),
        (Choice(), "c", ("a", "b"), "'c' is none of the choices"),
        (Exact(), "a", ("a", "b"), 'belong to a suite with grade = "choice"'),
    ],
)
def test_an_answer_that_cannot_be_graded_is_refused_before_anything_runs(
    grade: Grade, answer: str, choices: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        check_answer(grade, answer, choices)
    assert says in str(caught.value)


def test_wrong_settings_are_said_at_once() -> None:
    with pytest.raises(ValueError, match="is no regular expression"):
        grader(Regex(pattern="("))
    with pytest.raises(ValueError, match="factor must not be 0"):
        grader(Numeric(units={"km": 0}))
    for grade in (Choice(), Judge(url="http://h/v1", model="m")):
        with pytest.raises(ValueError, match="not decided by text alone"):
            grader(grade)
