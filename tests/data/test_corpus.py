"""Checks and the frozen corpus: counted, refused by default, the same bytes everywhere."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from avocado.data import corpus
from avocado.data.chat import ChatTemplate
from avocado.data.checks import Report, Rules
from avocado.data.preference import Preference
from avocado.data.record import LEARNT_BY
from avocado.data.sources import Source
from avocado.errors import Refused
from avocado.lineage import Manifest, digest_file, digest_folder


def talk(question: str, answer: str = "yes", **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def freeze(
    template: ChatTemplate,
    *sources: Path | Source,
    out: Path,
    rules: Rules | None = None,
    **settings: Any,
) -> corpus.Corpus:
    out.mkdir(parents=True, exist_ok=True)
    return corpus.freeze(sources, template, rules or Rules(64), out, **settings)


def identity(frozen: corpus.Corpus, folder: Path) -> str:
    return Manifest("corpus", frozen.facts, {}, digest_folder(folder)).id


def test_the_same_files_give_the_same_id_anywhere(seedling: ChatTemplate, tmp_path: Path) -> None:
    rows = [talk("wie?", language="de", license="MIT"), talk("why?", language="en")]
    ids = set()
    for place in ("here", "there/deeper"):
        path = write(tmp_path / place / "a.jsonl", *rows)
        frozen = freeze(seedling, path, out=tmp_path / place / "corpus")
        ids.add(identity(frozen, tmp_path / place / "corpus"))
        assert str(tmp_path) not in json.dumps(frozen.facts)
    assert len(ids) == 1
    changed = write(tmp_path / "other" / "a.jsonl", rows[0], talk("why??", language="en"))
    frozen = freeze(seedling, changed, out=tmp_path / "other" / "corpus")
    assert identity(frozen, tmp_path / "other" / "corpus") not in ids


def test_a_corpus_reads_back_in_order_and_is_counted(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    rows = [talk("wie?", language="de", license="MIT"), talk("why?", source="letters")]
    frozen = freeze(
        seedling,
        Source(write(tmp_path / "a.jsonl", *rows), licence="CC0-1.0"),
        out=tmp_path / "c",
    )
    back = list(corpus.read(tmp_path / "c"))
    assert [each.user_texts for each in back] == [("wie?",), ("why?",)]
    assert frozen.report.languages == {"de": 1, "und": 1}
    assert frozen.report.licences == {"CC0-1.0": 1, "MIT": 1}
    assert frozen.report.sources == frozen.facts["sources"] == {"a.jsonl": 1, "letters": 1}
    digest = digest_file(tmp_path / "a.jsonl")
    assert frozen.facts["files"] == [
        {"name": "a.jsonl", "sha256": digest, "format": "jsonl", "shape": "messages", "rows": 2}
    ]
    made = [row for each in back for row in seedling.rows(each.messages)]
    assert frozen.report.tokens == sum(len(row.ids) for row in made)
    assert frozen.report.trained == sum(row.trained for row in made)
    assert frozen.report.longest == max(len(row.ids) for row in made)


def test_duplicates_are_left_out_and_counted(seedling: ChatTemplate, tmp_path: Path) -> None:
    first = write(tmp_path / "1" / "a.jsonl", talk("a"), talk("b"), talk("a", language="de"))
    second = write(tmp_path / "2" / "a.jsonl", talk("a"))
    report = freeze(seedling, first, second, out=tmp_path / "c").report
    assert (report.accepted, report.dropped, report.rejected) == (2, 2, {"duplicate": 2})
    assert report.examples["duplicate"] == (
        "a.jsonl, row 3: it repeats a.jsonl, row 1",
        "a.jsonl (2), row 1: it repeats a.jsonl, row 1",
    )


@pytest.mark.parametrize("asked", ["What is due?", "  what IS\n due? ", "Ｗｈａｔ is due?"])
def test_fault_41_an_evaluation_item_in_training_is_refused(
    seedling: ChatTemplate, tmp_path: Path, asked: str
) -> None:
    path = write(tmp_path / "a.jsonl", talk("something else"), talk(asked, "other answer"))
    held_out = [[{"role": "user", "content": "What is due?"}]]
    with pytest.raises(Refused, match=r"a\.jsonl, row 2: the evaluation asks this very question"):
        freeze(seedling, path, out=tmp_path / "c", evaluation=held_out)
    assert not any((tmp_path / "c").iterdir())
    rules = Rules(64, contaminated="drop")
    kept = freeze(seedling, path, out=tmp_path / "d", rules=rules, evaluation=held_out).report
    assert (kept.accepted, kept.rejected) == (1, {"in the evaluation": 1})


def test_a_frozen_corpus_can_be_held_against_a_later_evaluation(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", talk("something else"), talk("What is due?"))
    freeze(seedling, path, out=tmp_path / "c")
    asked = [{"role": "user", "content": "what is DUE?"}]
    assert corpus.contamination(tmp_path / "c", [asked]) == ["a.jsonl, row 2"]
    answered = [{"role": "user", "content": "Hello"}, *talk("what is due?")["messages"][:1]]
    assert corpus.contamination(tmp_path / "c", [answered]) == ["a.jsonl, row 2"]
    assert not corpus.contamination(tmp_path / "c", [[{"role": "user", "content": "due?"}]])


def test_contamination_is_found_in_a_later_turn(seedling: ChatTemplate, tmp_path: Path) -> None:
    row = talk("hello")
    row["messages"] += talk("What is due?")["messages"]
    path = write(tmp_path / "a.jsonl", row)
    held_out = [[{"role": "user", "content": "What is due?"}]]
    with pytest.raises(Refused, match="the evaluation asks"):
        freeze(seedling, path, out=tmp_path / "c", evaluation=held_out)


def test_fault_41_over_length_is_an_error_and_dropping_a_choice(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", talk("short"), talk("long " * 200))
    with pytest.raises(Refused, match=r"row 2: \d+ tokens where max_length allows 64") as caught:
        freeze(seedling, path, out=tmp_path / "c")
    assert caught.value.reasons[-1].endswith('over_length = "drop" under [training]')
    rules = Rules(64, over_length="drop")
    report = freeze(seedling, path, out=tmp_path / "d", rules=rules).report
    assert (report.accepted, report.dropped, report.longest < 64) == (1, 1, True)


def test_fault_41_a_row_of_a_million_tokens_is_counted_not_cut(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", talk("0" * 1_000_000))
    with pytest.raises(Refused, match=r"row 1: 1,000,\d\d\d tokens"):
        freeze(seedling, path, out=tmp_path / "c")


def test_fault_41_nothing_is_dropped_in_silence(seedling: ChatTemplate, tmp_path: Path) -> None:
    rows = [talk("a"), {"prompt": "x"}, *({"text": str(n)} for n in range(20)), talk("<|im_end|>")]
    path = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(Refused) as caught:
        freeze(seedling, path, out=tmp_path / "c")
    assert caught.value.reasons[0] == (
        "a.jsonl, row 2: it is of the shape 'prompts', and row 1 of 'OpenAI messages': "
        "a file has one shape"
    )
    assert caught.value.reasons[-2] == "… and 16 more rows"
    assert not any((tmp_path / "c").iterdir())
    report = freeze(seedling, path, out=tmp_path / "d", rules=Rules(64, invalid="drop")).report
    assert report.rows == 23 == report.accepted + report.dropped
    assert report.rejected == {"another shape": 21, "not renderable": 1}


def test_rows_dropped_by_choice_are_not_given_as_reasons(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", talk("a"), talk("a"), {"no": 1})
    with pytest.raises(Refused) as caught:
        freeze(seedling, path, out=tmp_path / "c")
    assert caught.value.reasons == (
        "a.jsonl, row 3: its columns are of no known shape (no); what can be read: OpenAI messages",
        'mend the data, or leave such rows out: invalid = "drop" under [checks]',
    )


def test_a_corpus_of_nothing_is_refused(seedling: ChatTemplate, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"no": 1})
    with pytest.raises(Refused, match="no row was accepted"):
        freeze(seedling, path, out=tmp_path / "c", rules=Rules(64, invalid="drop"))


def test_a_survey_says_what_freezing_would(seedling: ChatTemplate, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", talk("a"), talk("a"), {"no": 1})
    surveyed = corpus.survey([path], seedling, Rules(64)).report
    frozen = freeze(seedling, path, out=tmp_path / "c", rules=Rules(64, invalid="drop")).report
    assert (surveyed.refused, frozen.refused) == (1, 0)
    assert {**surveyed.to_json(), "refused": 0, "dropped": 2} == frozen.to_json()
    assert "rejected, duplicate: 1" in surveyed.lines()


def test_a_report_is_plain_json(seedling: ChatTemplate, tmp_path: Path) -> None:
    report = corpus.survey([write(tmp_path / "a.jsonl", talk("a"))], seedling, Rules(64)).report
    assert isinstance(report, Report)
    assert json.loads(json.dumps(report.to_json())) == report.to_json()


def test_a_damaged_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is no corpus"):
        list(corpus.read(tmp_path))
    (tmp_path / "examples.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(Refused, match="row 1 is damaged"):
        list(corpus.read(tmp_path))


def pair(question: str, **more: Any) -> dict[str, Any]:
    return {"prompt": question, "chosen": "yes", "rejected": "no", **more}


@pytest.mark.parametrize(
    ("method", "row", "file"),
    [
        ("supervised", talk("a"), "examples.jsonl"),
        ("pretraining", {"text": "Once upon a time"}, "documents.jsonl"),
        ("dpo", pair("a"), "preferences.jsonl"),
        ("kto", {"prompt": "a", "completion": "b", "label": True}, "labels.jsonl"),
        ("grpo", {"prompt": "a", "answer": "b", "level": 1}, "problems.jsonl"),
        ("distillation", talk("a"), "problems.jsonl"),
    ],
)
def test_each_method_has_a_corpus_of_its_kind(
    seedling: ChatTemplate, tmp_path: Path, method: str, row: Any, file: str
) -> None:
    kind = LEARNT_BY[method]
    frozen = freeze(seedling, write(tmp_path / "a.jsonl", row), out=tmp_path / "c", kind=kind)
    assert [path.name for path in (tmp_path / "c").iterdir()] == [file]
    back: Any = next(corpus.read(tmp_path / "c", kind))
    assert back.to_json() == json.loads((tmp_path / "c" / file).read_text("utf-8"))
    assert frozen.facts["kind"] == kind.__name__.lower()
    assert corpus.kind_of(tmp_path / "c") is kind
    others = next(each for each in LEARNT_BY.values() if each is not kind)
    with pytest.raises(Refused, match=r"is no corpus of .*: it holds "):
        list(corpus.read(tmp_path / "c", others))


def test_contamination_is_found_in_a_corpus_of_any_kind(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", pair("What is due?"), pair("else"))
    freeze(seedling, path, out=tmp_path / "c", kind=Preference)
    asked = [{"role": "user", "content": "what is DUE?"}]
    assert corpus.contamination(tmp_path / "c", [asked]) == ["a.jsonl, row 1"]


def questions(folder: Path, **settings: Any) -> list[str]:
    return [each.user_texts[0] for each in corpus.read(folder, **settings)]


def test_a_weight_repeats_rows_or_leaves_some_out_by_what_they_say(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    rows = [talk(f"question {number}") for number in range(400)]
    path = write(tmp_path / "a.jsonl", *rows)
    half = freeze(seedling, Source(path, weight=0.5), out=tmp_path / "half")
    kept = questions(tmp_path / "half")
    assert 160 < len(kept) < 240
    assert half.facts["learnt"] == len(kept) == 400 - half.facts["thinned"]
    turned = Source(write(tmp_path / "b" / "a.jsonl", *reversed(rows)), weight=0.5)
    freeze(seedling, turned, out=tmp_path / "turned")
    assert questions(tmp_path / "turned") == kept[::-1]
    freeze(seedling, Source(path, weight=0.75), out=tmp_path / "more")
    assert set(kept) < set(questions(tmp_path / "more"))
    twice = freeze(seedling, Source(path, weight=2.5), out=tmp_path / "twice")
    counts = Counter(questions(tmp_path / "twice"))
    assert {text: count for text, count in counts.items() if count == 3} == dict.fromkeys(kept, 3)
    assert min(counts.values()) == 2
    assert twice.facts["learnt"] == counts.total() == 800 + len(kept)
    assert twice.report.accepted == 400


def test_rows_are_held_out_by_whole_groups(seedling: ChatTemplate, tmp_path: Path) -> None:
    rows = [talk(f"question {number}", customer=number % 20) for number in range(200)]
    source = Source(write(tmp_path / "a.jsonl", *rows), group="customer")
    frozen = freeze(seedling, source, out=tmp_path / "c", holdout=0.1)
    learnt = {each.group for each in corpus.read(tmp_path / "c")}
    held = {each.group for each in corpus.read(tmp_path / "c", held_out=True)}
    assert (len(learnt), len(held), learnt & held) == (18, 2, set())
    assert (frozen.facts["learnt"], frozen.facts["held_out"]) == (180, 20)
    none = freeze(seedling, source, out=tmp_path / "d")
    assert none.facts["held_out"] == 0
    assert not list(corpus.read(tmp_path / "d", held_out=True))


def test_near_duplicates_that_are_kept_never_fall_on_both_sides(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    def words(number: int, changed: str) -> str:
        return " ".join(f"w{number}x{place}" for place in range(30)) + f" {changed}"

    rows = [talk(words(number, change)) for number in range(40) for change in ("one", "two")]
    rules = Rules(512, near_duplicates="keep")
    path = write(tmp_path / "a.jsonl", *rows)
    frozen = freeze(seedling, path, out=tmp_path / "c", rules=rules, holdout=0.25)
    assert frozen.report.alike == 40
    held = Counter(text.split()[0] for text in questions(tmp_path / "c", held_out=True))
    assert len(held) == 10
    assert set(held.values()) == {2}


def test_general_data_is_replayed_and_never_held_out(
    seedling: ChatTemplate, tmp_path: Path
) -> None:
    task = write(tmp_path / "task.jsonl", *(talk(f"task {n}", group=f"t{n}") for n in range(20)))
    general = write(tmp_path / "general.jsonl", *(talk(f"general {n}") for n in range(80)))
    shared = write(
        tmp_path / "shared.jsonl", *(talk(f"shared {n}", group=f"t{n}") for n in range(9))
    )
    sources = [Source(task), Source(general, replay=True), Source(shared, replay=True)]
    frozen = freeze(seedling, *sources, out=tmp_path / "c", holdout=0.5)
    held = questions(tmp_path / "c", held_out=True)
    assert len(held) == round(0.5 * 11)
    assert all(text.startswith("task ") for text in held)
    assert not {f"task {n}" for n in range(9)} & set(held)
    assert frozen.facts["files"][1]["replay"] is True


def test_a_holdout_that_no_group_fits_is_refused(seedling: ChatTemplate, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(talk(f"question {n}", group="one") for n in range(9)))
    with pytest.raises(Refused, match="needs a group of at most 1 rows: the smallest group has 9"):
        freeze(seedling, path, out=tmp_path / "c", holdout=0.1)
    assert not any((tmp_path / "c").iterdir())


def test_the_same_data_gives_the_same_id_whatever_order_a_folder_lists(
    seedling: ChatTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        write(tmp_path / "data" / f"{number}.jsonl", *(talk(f"q {number} {n}") for n in range(9)))
    source = Source(tmp_path / "data", weight=0.9)

    def made(name: str) -> str:
        frozen = freeze(seedling, source, out=tmp_path / name, holdout=0.2)
        return identity(frozen, tmp_path / name)

    straight, listed = made("c"), Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listed(self), reverse=True))
    assert made("d") == straight
