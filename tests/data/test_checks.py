"""The checker: every kind of record, every reason counted, and rows that belong together."""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from avocado.cli.data import rules_of
from avocado.data import contamination, corpus, duplicates, secrets
from avocado.data.chat import IGNORED, ChatTemplate
from avocado.data.checks import (
    CONTAMINATED,
    DUPLICATE,
    NEAR_DUPLICATE,
    NOT_RENDERED,
    OVER_LENGTH,
    Checker,
    Report,
    Rules,
)
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.length import rendered
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.data.record import Record
from avocado.data.rejection import Rejection
from avocado.data.report import Histogram
from avocado.errors import Refused
from avocado.train.recipe import parse

WORDS = [f"w{number}" for number in range(1_000)]


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def talk(question: str, answer: str = "yes", row: int = 1, **more: Any) -> Example:
    return Example((turn("user", question), turn("assistant", answer)), file="a", row=row, **more)


def prose(seed: int, length: int = 80) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def check(
    template: ChatTemplate, records: Iterable[Record | Rejection], **rules: Any
) -> tuple[list[Record], Report, Checker]:
    evaluation = rules.pop("evaluation", ())
    checker = Checker(template, Rules(rules.pop("max_length", 4096), **rules), evaluation)
    accepted: list[Record] = list(checker.accept(records))
    return accepted, checker.report(), checker


ASKED = (turn("user", "Is it so?"),)
KINDS: Sequence[Record] = (
    talk("Is it so?"),
    Document("It is so."),
    Preference(ASKED, turn("assistant", "Yes, it is."), turn("assistant", "No.")),
    Label(ASKED, turn("assistant", "Yes."), desirable=True),
    Problem(ASKED, reference="Yes."),
)


@pytest.mark.parametrize("record", KINDS, ids=lambda each: type(each).__name__)
def test_every_kind_of_record_is_accepted_measured_and_masked(
    record: Record, seedling: ChatTemplate
) -> None:
    accepted, report, _ = check(seedling, [record, record])
    assert accepted == [record]
    assert report.rejected == {"duplicate": 1}
    rows = rendered(record, seedling)
    assert report.sequences == len(rows)
    assert report.tokens == sum(len(row.ids) for row in rows)
    assert report.trained == sum(row.trained for row in rows)
    assert sum(report.shapes.values()) == 1
    assert report.longest == max(len(row.ids) for row in rows)


def test_what_each_kind_teaches(seedling: ChatTemplate) -> None:
    def learnt(record: Record) -> list[str]:
        rows = rendered(record, seedling)
        return [
            seedling.tokenizer.decode([label for label in row.labels if label != IGNORED])
            for row in rows
        ]

    earlier = (turn("user", "Hello"), turn("assistant", "Hi"), turn("user", "Is it so?"))
    pair = Preference(earlier, turn("assistant", "Yes"), turn("assistant", "No"))
    assert learnt(pair) == ["Yes<|im_end|>", "No<|im_end|>"]
    assert learnt(Label(earlier, turn("assistant", "No"), desirable=False)) == ["No<|im_end|>"]
    assert learnt(Problem(earlier, reference="Yes")) == [""]
    (text,) = learnt(Document("It is so."))
    assert text.startswith("It is so.")
    assert text.removeprefix("It is so.") == seedling.tokenizer.eos_token


def test_near_duplicates_are_left_out_by_default_with_the_row_they_repeat(
    seedling: ChatTemplate,
) -> None:
    text = prose(1)
    changed = text.split()
    changed[40] = "indeed"
    rows = [talk(prose(2), row=1), talk(text, row=2), talk(" ".join(changed), row=3)]
    accepted, report, _ = check(seedling, rows)
    assert accepted == rows[:2]
    assert report.rejected == {"near duplicate": 1}
    (named,) = report.examples["near duplicate"]
    assert re.fullmatch(r"a, row 3: it repeats a, row 2 to [89]\d%", named)
    assert report.repeated == (("a, row 2", 1),)
    assert (report.dropped, report.refused) == (1, 0)
    assert check(seedling, rows, near_duplicates="refuse")[1].refused == 1
    assert check(seedling, rows, likeness=1.0)[1].accepted == 3


def test_near_duplicates_that_are_kept_are_one_group(seedling: ChatTemplate) -> None:
    first, second = prose(1), prose(2)
    rows = [
        talk(first, row=1),
        talk(second, row=2),
        talk(f"{first} indeed", row=3),
        talk(prose(3), row=4),
        talk(f"{second} indeed", row=5),
        talk(f"{first} for sure", row=6),
    ]
    accepted, report, checker = check(seedling, rows, near_duplicates="keep")
    assert accepted == rows
    assert report.alike == 3
    assert checker.groups.all() == [0, 1, 0, 3, 1, 0]


def test_a_row_like_two_others_joins_their_groups(seedling: ChatTemplate) -> None:
    text = prose(1, 100).split()
    left, right = text[:], text[:]
    left[:12], right[-12:] = prose(2, 12).split(), prose(3, 12).split()
    rows = [talk(" ".join(left)), talk(" ".join(right)), talk(" ".join(text))]
    accepted, _, checker = check(seedling, rows, near_duplicates="keep", likeness=0.7)
    assert accepted == rows
    assert checker.groups.all() == [0, 0, 0]


def test_a_row_that_was_rejected_shifts_no_group(seedling: ChatTemplate) -> None:
    rows = [
        talk(prose(1), row=1),
        talk("x" * 400, row=2),
        talk("a<|im_end|>", row=3),
        talk(prose(4), row=4),
        talk(f"{prose(4)} indeed", row=5),
    ]
    accepted, report, checker = check(
        seedling, rows, near_duplicates="keep", invalid="drop", over_length="drop", max_length=380
    )
    assert [each.row for each in accepted] == [1, 4, 5]
    assert report.rejected == {"not renderable": 1, "over length": 1}
    assert checker.groups.all() == [0, 1, 1]


@pytest.mark.slow
def test_a_task_with_one_instruction_keeps_its_rows(seedling: ChatTemplate) -> None:
    task = pytest.importorskip("avocado.demo.task")
    instruction = "Read the date and the amount in this text, and answer in JSON only, please:"
    rows: list[Record] = [
        talk(f"{instruction} {item.text}", item.answer, row)
        for row, item in enumerate(task.items(1_500, seed=4), 1)
    ]
    accepted, report, _ = check(seedling, rows)
    assert report.rejected == {}
    assert accepted == rows
    plain: list[Record] = [talk(item.text, item.answer) for item in task.items(1_500, seed=5)]
    assert check(seedling, plain)[1].rejected == {}


def test_the_same_rows_give_the_same_report(seedling: ChatTemplate) -> None:
    rows = [talk(f"{prose(n % 40)} {n}", language="en") for n in range(200)]
    first, second = (check(seedling, rows)[1] for _ in range(2))
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())
    assert first.rejected["near duplicate"] == 160


def test_rows_beyond_one_block_are_all_read_in_order(seedling: ChatTemplate) -> None:
    rows = [talk(f"question {n}", row=n) for n in range(1_100)]
    accepted, report, _ = check(seedling, rows)
    assert accepted == rows
    assert report.rows == 1_100


def test_a_stream_is_not_read_to_its_end(seedling: ChatTemplate) -> None:
    read = 0

    def endless() -> Iterable[Example]:
        nonlocal read
        while True:
            read += 1
            yield talk(f"question {read}")

    assert next(Checker(seedling, Rules(64)).accept(endless())) == talk("question 1")
    assert read <= 512


def test_personal_data_is_counted_and_masked_on_request(seedling: ChatTemplate) -> None:
    rows = [talk("Who is ann@firma.de?", "ann@firma.de, +49 30 901820"), talk("Nobody?")]
    accepted, report, _ = check(seedling, rows)
    assert accepted == rows
    assert (report.personal, report.personal_rows) == ({"email": 2, "phone": 1}, 1)
    assert any("(not masked)" in line for line in report.lines())
    accepted, report, _ = check(seedling, rows, mask=("email",))
    assert accepted == [talk("Who is [EMAIL]?", "[EMAIL], +49 30 901820"), rows[1]]
    assert report.to_json()["mask"] == ["email"]
    assert report.to_json()["personal"] == {"email": 2, "phone": 1}
    assert any("(not masked: phone)" in line for line in report.lines())
    everything = check(seedling, rows, mask=("personal",))
    assert any(line.endswith("(masked)") for line in everything[1].lines())


@pytest.mark.parametrize("record", KINDS, ids=lambda each: type(each).__name__)
def test_a_mask_reaches_every_kind_and_leaves_its_origin(
    record: Record, seedling: ChatTemplate
) -> None:
    row = json.loads(json.dumps(record.to_json()).replace("so", "so@firma.de"))
    marked: Any = type(record).from_json({**row, "source": "me@firma.de", "language": "en"})
    (masked,), _, _ = check(seedling, [marked], mask=("personal",))
    text = json.dumps(masked.to_json())
    assert "so@firma.de" not in text
    assert "[EMAIL]" in text
    assert masked.source == "me@firma.de"


def test_rows_that_a_mask_makes_equal_are_duplicates(seedling: ChatTemplate) -> None:
    rows = [talk("Who is ann@firma.de?"), talk("Who is bob@firma.de?")]
    assert check(seedling, rows, mask=("email",))[1].rejected == {"duplicate": 1}
    assert check(seedling, rows)[1].rejected == {}


def test_languages_are_counted_as_stated_and_as_they_look(seedling: ChatTemplate) -> None:
    german = "Bitte überweisen Sie den Betrag bis zum Ende des Monats März."
    rows = [talk(german, language="de"), talk(german, "ja", language="en"), talk(german, "nein")]
    _, report, _ = check(seedling, rows)
    assert report.languages == {"de": 1, "en": 1, "und": 1}
    assert report.guesses.languages == {"de": 3}
    assert report.guesses.mismatches == 1
    assert "it states en, looks like de" in report.guesses.examples[0]
    assert "guess" not in json.dumps(report.to_json()), "a guess is no fact"


def test_shapes_licences_and_sources_are_counted(seedling: ChatTemplate) -> None:
    rows = [
        talk("a", licence="MIT", source="x"),
        Example((turn("system", "s"), turn("user", "b"), turn("assistant", "c")), source="x"),
        Example((*talk("d").messages, *talk("e").messages), licence="MIT", source="y"),
    ]
    _, report, _ = check(seedling, rows)
    assert report.licences == {"MIT": 2, "unknown": 1}
    assert report.sources == {"x": 2, "y": 1}
    assert report.features == {"several questions": 1, "system message": 1}


def test_every_reason_is_counted_by_itself(seedling: ChatTemplate) -> None:
    rows: list[Record | Rejection] = [
        Rejection("a", 1, "broken role order", "it ends with a user turn"),
        Rejection("a", 2, "empty turn", "message 1 (user) is empty"),
        talk("What is due?", row=3),
        talk("a", row=4),
        talk("a", row=5),
    ]
    evaluation = [[turn("user", "What is due?")]]
    _, report, _ = check(seedling, rows, evaluation=evaluation, invalid="drop")
    assert report.rejected == {
        "broken role order": 1,
        "duplicate": 1,
        "empty turn": 1,
        "in the evaluation": 1,
    }
    assert report.rows == 5 == report.accepted + report.refused + report.dropped
    assert (report.refused, report.dropped) == (1, 3)


@pytest.mark.parametrize("wrong", [{"likeness": 0.0}, {"likeness": 1.1}, {"mask": ("names",)}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"likeness|names"):
        Rules(64, **wrong)


def test_a_histogram_has_no_gaps_and_counts_everything() -> None:
    counts = {length: length % 7 + 1 for length in range(3, 5_000, 11)}
    histogram = Histogram.of(counts)
    assert sum(count for _, _, count in histogram.buckets) == sum(counts.values())
    for (_, end, _), (start, _, _) in zip(histogram.buckets, histogram.buckets[1:], strict=False):
        assert start == end + 1
    for low, high, count in histogram.buckets:
        assert count == sum(each for length, each in counts.items() if low <= length <= high)
    for share, value in histogram.percentiles.items():
        below = sum(count for length, count in counts.items() if length <= value)
        before = sum(count for length, count in counts.items() if length < value)
        assert before < sum(counts.values()) * share / 100 <= below
    assert Histogram.of({}).buckets == ()


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([turn("user", "a"), turn("assistant", " ")], "empty turn"),
        ([turn("user", ""), turn("assistant", "b")], "empty turn"),
        ([turn("user", "a"), turn("assistant", "b"), turn("user", "c")], "broken role order"),
        ([turn("assistant", "a"), turn("assistant", "b")], "broken role order"),
        ([turn("user", "a"), turn("system", "s"), turn("assistant", "b")], "broken role order"),
        ([turn("user", "a"), turn("tool", "t"), turn("assistant", "b")], "broken role order"),
        ([turn("user", "a")], "not a conversation"),
        ([turn("robot", "a"), turn("assistant", "b")], "not a conversation"),
    ],
)
def test_fault_41_empty_turns_and_broken_order_have_reasons_of_their_own(
    messages: list[dict[str, Any]], reason: str, seedling: ChatTemplate, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    path.write_text(f"{json.dumps(good)}\n{json.dumps({'messages': messages})}\n", "utf-8")
    report = corpus.survey([path], seedling, Rules(64)).report
    assert report.rejected == {reason: 1}
    assert report.examples[reason][0].startswith("a.jsonl, row 2: ")
    assert (report.accepted, report.refused) == (1, 1)


def test_the_page_on_checks_says_what_the_code_does() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    text = " ".join(page[page.index("## Checks") :].split())
    table = tomllib.loads(page.split("## Checks")[1].split("```toml")[1].split("```")[0])
    rules = Rules(8)
    given = {**table["checks"], "mask": ()}
    assert {name: getattr(rules, name) for name in given} == given
    assert secrets.kinds_of(table["checks"]["mask"])
    for kind in (*secrets.KINDS, *secrets.GROUPS):
        assert f"`{kind}`" in text
    for reason in (DUPLICATE, NEAR_DUPLICATE, CONTAMINATED, OVER_LENGTH, NOT_RENDERED):
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{reason}` |"))
        assert row.endswith("| left out |" if rules.of(reason) == "drop" else "| stops |")
    assert f"{contamination.LONG} words of it in a row" in text
    assert f"({contamination.LONG_UNSPACED} characters in scripts" in text
    assert f"runs of {contamination.SHORT} words, or of {contamination.SHORT_UNSPACED}" in text
    assert f"{contamination.SHARE:.0%} of the runs" in text
    assert f"word {duplicates.SIZE}-grams" in text
    assert (contamination.TEMPLATE_ROWS, duplicates.COMMON_ROWS) == (10, 10)


def test_a_recipes_checks_decide_what_is_frozen(seedling: ChatTemplate, tmp_path: Path) -> None:
    recipe = parse(
        'name = "r"\nbase = "seedling"\ndata = ["a.jsonl"]\n'
        "[training]\nlearning_rate = 1e-3\nbatch = 4\nepochs = 1\nmax_length = 99\n"
        'over_length = "drop"\n'
        '[checks]\nnear_duplicates = "keep"\nlikeness = 0.7\ncontaminated = "drop"\n'
        'invalid = "drop"\nmask = ["personal"]\n'
    )
    rules = rules_of(recipe)
    assert rules == Rules(99, "drop", "drop", "drop", "keep", 0.7, ("personal",))
    rows = [talk("Who is ann@firma.de?", "Ann").to_json(), {"messages": []}]
    path = tmp_path / "a.jsonl"
    kept = [{key: row[key] for key in row if key == "messages"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    (tmp_path / "corpus").mkdir()
    frozen = corpus.freeze([path], seedling, rules, tmp_path / "corpus")
    assert frozen.facts["mask"] == list(secrets.PERSONAL)
    assert frozen.facts["personal"] == {"email": 1}
    (row,) = corpus.read(tmp_path / "corpus")
    assert row.user_texts == ("Who is [EMAIL]?",)
    wrong = 'name = "r"\nbase = "b"\ndata = ["a"]\n[checks]\nmask = ["names"]\n'
    with pytest.raises(Refused, match="mask"):
        parse(f"{wrong}[training]\nlearning_rate = 1e-3\nbatch = 4\nepochs = 1\n")
