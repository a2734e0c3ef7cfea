"""Near duplicates: what repeats is found, what differs in its facts is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.data.duplicates import Groups, NearDuplicates, Shingles, common
from avocado.data.words import grams, tokens, unspaced, words

WORDS = [f"word{number}" for number in range(2_000)]


def prose(seed: int, length: int = 120) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def row(text: str, answer: str = "", mark: str = "") -> Shingles:
    return Shingles.of([text, answer], [(mark, answer)] if answer else [])


def first_match(near: NearDuplicates, shingles: Shingles) -> int | None:
    sketch = near.sketch(shingles)
    assert sketch is not None
    alike = near.alike(sketch)
    return alike[0].row if alike else None


def add(near: NearDuplicates, number: int, shingles: Shingles) -> None:
    sketch = near.sketch(shingles)
    assert sketch is not None
    near.add(number, sketch)


@pytest.mark.parametrize("seed", range(20))
def test_a_long_text_with_one_word_changed_is_a_repetition(seed: int) -> None:
    near = NearDuplicates(0.8)
    text = prose(seed)
    add(near, 0, row(" ".join(prose(seed + 1_000))))
    add(near, 1, row(" ".join(text)))
    changed = [*text[:60], "otherwise", *text[61:]]
    assert first_match(near, row("  ".join(changed).upper())) == 1


@pytest.mark.parametrize("seed", range(20))
def test_half_another_text_is_none(seed: int) -> None:
    near = NearDuplicates(0.8)
    text = prose(seed)
    add(near, 0, row(" ".join(text)))
    assert first_match(near, row(" ".join(text[:60] + prose(seed + 1_000)[:60]))) is None


def test_the_estimate_is_near_the_true_likeness() -> None:
    near = NearDuplicates(0.05)
    for seed in range(30):
        text, other = prose(seed, 200), prose(seed + 500, 200)
        shared = random.Random(seed).randrange(20, 200)
        one, two = row(" ".join(text)), row(" ".join(text[:shared] + other[shared:]))
        true = len(one.whole & two.whole) / len(one.whole | two.whole)
        first, second = near.sketch(one), near.sketch(two)
        assert first is not None
        assert second is not None
        assert first.share(second.values) == pytest.approx(true, abs=0.28)  # four standard errors


def test_a_short_row_with_another_fact_is_another_row() -> None:
    near = NearDuplicates(0.8)
    add(near, 0, row("What is the capital of France, please?", "Paris"))
    assert first_match(near, row("What is the capital of Spain, please?", "Madrid")) is None
    assert first_match(near, row("2 + 2 = ?", "4")) is None
    add(near, 1, row("2 + 2 = ?", "4"))
    assert first_match(near, row("2 - 2 = ?", "0")) is None
    assert first_match(near, row("What is the  capital of FRANCE, please?", "paris")) == 0


def test_two_questions_on_one_long_passage_are_two_rows() -> None:
    near = NearDuplicates(0.8)
    passage = " ".join(prose(1, 400))
    add(near, 0, row(f"{passage} Who wrote it?", "Ann"))
    assert first_match(near, row(f"{passage} When was it?", "1999")) is None
    assert first_match(near, row(f"{passage} Who did write it?", "Ann")) == 0


def test_a_good_and_a_bad_answer_are_two_rows() -> None:
    near = NearDuplicates(0.8)
    text, answer = " ".join(prose(1)), " ".join(prose(2, 40))
    add(near, 0, row(text, answer, "+"))
    assert first_match(near, row(text, answer, "-")) is None
    assert first_match(near, row(text, answer, "+")) == 0


def test_template_text_that_rows_share_is_no_likeness() -> None:
    instruction = " ".join(prose(7, 300))
    facts = [f"Invoice {n * 7919} from {WORDS[n]} to {WORDS[n + 50]}" for n in range(40)]
    rows = [row(f"{instruction}\n{fact}", f'{{"id": {n}}}') for n, fact in enumerate(facts)]
    near = NearDuplicates(0.8)
    near.learn_template(rows)
    for number, each in enumerate(rows):
        assert first_match(near, each) is None
        add(near, number, each)
    assert first_match(near, row(f"{instruction}\n{facts[3]}", '{"id": 3}')) == 3


def test_ten_rows_are_no_template() -> None:
    rows = [row(" ".join(prose(7)))] * 10
    assert not common(rows)
    assert common([*rows, rows[0]]) == rows[0].whole


def test_a_row_of_template_only_is_not_compared() -> None:
    near = NearDuplicates(0.8)
    near.learn_template([row("the same five words always")] * 11)
    assert near.sketch(row("the same five words always")) is None
    assert near.sketch(row("")) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_groups_are_the_connected_rows(pairs: list[tuple[int, int]]) -> None:
    groups = Groups()
    reached = [{number} for number in range(20)]
    for _ in range(20):
        groups.add()
    for one, other in pairs:
        groups.join(one, other)
        whole = reached[one] | reached[other]
        for each in whole:
            reached[each] = whole
    assert groups.all() == [min(each) for each in reached]


def test_words_in_every_script() -> None:
    assert words("On Nov 26, 2039 we paid JPY\u00a01,234.50!") == [
        *("on", "nov", "26", "2039", "we", "paid", "jpy", "1,234.50")
    ]
    assert words("请于3月5日前付") == ["请", "于", "3", "月", "5", "日", "前", "付"]
    assert words("Ｗｈａｔ Straße") == ["what", "strasse"]
    assert words("हिन्दी भाषा।") == ["हिन्दी", "भाषा"]
    assert words("a->b; ...") == ["a", "b"]
    assert tokens("a->b") == ["a", "-", ">", "b"]
    assert unspaced(words("请于3月5日前付"))
    assert not unspaced(words("한국어는 띄어쓰기를 한다"))
    assert list(grams(["a", "b", "c"], 2)) == ["a b", "b c"]
    assert list(grams(["a"], 2)) == []
