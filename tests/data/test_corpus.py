"""Checks and the frozen corpus: counted, refused by default, the same bytes everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avocado.data import corpus
from avocado.data.chat import ChatTemplate
from avocado.data.checks import Report, Rules
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
    with pytest.raises(Refused, match=r"row 2: \d+ tokens where max_length allows 64"):
        freeze(seedling, path, out=tmp_path / "c")
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
    assert caught.value.reasons[-1] == "… and 16 more rows"
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
