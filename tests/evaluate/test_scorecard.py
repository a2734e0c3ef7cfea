"""A scorecard is a value: the same results, the same hash; it reads back; it names its weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from avocado.evaluate.run import Result
from avocado.evaluate.scorecard import Scorecard, model_sha256, read_results, write_results
from avocado.evaluate.scored import Asked, Scored
from avocado.evaluate.suite import Suite, SuiteError
from avocado.evaluate.timing import Timing
from tests.evaluate.rows import PARENTS, card, result, scored


def changed(suite: Scored, **facts: object) -> Scored:
    """``suite`` with another answer of the checkpoint to its first item."""
    first = suite.rows[0]
    other = dataclasses.replace(first.other, **facts)  # type: ignore[arg-type]
    rows = (dataclasses.replace(first, other=other), *suite.rows[1:])
    return dataclasses.replace(suite, rows=rows)


def test_it_counts_per_language_and_overall() -> None:
    suite = scored({"de": (0.1, 0.9), "zh": (0.5, 0.5)})
    scorecard = card(suite)
    assert list(scorecard.languages) == ["de", "zh"]
    assert scorecard.overall.n == sum(each.n for each in scorecard.languages.values()) == 80
    assert scorecard.overall.won == sum(each.won for each in scorecard.languages.values())
    german = [row.other.score for row in suite.rows if row.other.language == "de"]
    assert scorecard.languages["de"].other == sum(german)
    assert scorecard.languages["de"].low > 0


def test_several_suites_stand_by_name_and_the_target_speaks_for_the_whole() -> None:
    guard = scored({"en": (0.9, 0.9)}, name="general", role="guard")
    target = scored({"de": (0.1, 0.9)}, name="dates")
    scorecard = card(guard, target)
    assert list(scorecard.suites) == ["general", "dates"]
    assert scorecard.overall is scorecard.suites["dates"].overall
    with pytest.raises(SuiteError, match="two suites have one name"):
        card(target, target)
    with pytest.raises(SuiteError, match="needs a suite"):
        card()


def test_the_same_results_give_the_same_hash_and_others_another() -> None:
    suite = scored({"de": (0.1, 0.9)})
    first = card(suite)
    assert card(suite).sha256 == first.sha256
    assert card(changed(suite, text="other")).sha256 != first.sha256
    assert card(changed(suite, completion=4)).sha256 != first.sha256
    assert dataclasses.replace(first, parents={}).sha256 != first.sha256


def test_a_slower_machine_gives_the_same_scorecard() -> None:
    suite = scored({"de": (0.1, 0.9)})
    assert card(changed(suite, seconds=99.0)).sha256 == card(suite).sha256


def test_facts_and_results_read_back(tmp_path: Path) -> None:
    suites = (
        scored({"de": (0.1, 0.9), "en": (0.3, 0.8)}, name="dates"),
        scored({"en": (0.3, 0.8)}, name="general", role="guard"),
    )
    scorecard = card(*suites)
    facts = json.loads(json.dumps(scorecard.facts(), sort_keys=True))  # as a manifest is kept
    again = Scorecard.from_facts(facts, PARENTS)
    assert again.facts() == facts
    assert again.sha256 == scorecard.sha256
    assert list(again.suites) == ["dates", "general"]
    write_results(tmp_path, suites)
    assert read_results(tmp_path) == suites


def test_scores_between_right_and_wrong_are_means() -> None:
    rows = [
        Asked("q", "", result(f"i{k}", "en", 0.25), result(f"i{k}", "en", 0.5 + k % 2 / 4))
        for k in range(40)
    ]
    scorecard = card(Scored("judged", "target", "mean score", "a" * 64, tuple(rows)))
    assert scorecard.overall.difference == pytest.approx(0.375)
    assert scorecard.overall.low > 0.3
    assert scorecard.overall.p < 0.001


def test_items_of_a_cluster_are_resampled_together() -> None:
    def rows(clusters: int | None) -> Scored:
        named = [None if clusters is None else f"c{k % clusters}" for k in range(60)]
        asked = (
            Asked(
                "q",
                "",
                result(f"i{k}", "en", 0, cluster=named[k]),
                result(f"i{k}", "en", k % 6 < 2, cluster=named[k]),
            )
            for k in range(60)
        )
        return Scored("s", "target", "right answers", "a" * 64, tuple(asked))

    alone, together = card(rows(None)).overall, card(rows(6)).overall
    assert (alone.clusters, together.clusters) == (60, 6)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_results_of_other_items_are_refused(tmp_path: Path) -> None:
    row = {"language": "en", "messages": [{"role": "user", "content": "q"}], "answer": "a"}
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(json.dumps({"id": f"i{k}", **row}) for k in range(3)))
    suite = Suite.read(path)
    results: list[Result] = [result(f"i{k}", "en", 1) for k in range(3)]
    assert Scored.of(suite, results, results).rows[2].question == "q"
    for wrong in (results[1:], results[::-1]):
        with pytest.raises(SuiteError, match="not those of the suite"):
            Scored.of(suite, results, wrong)


def test_a_scorecard_of_an_older_form_is_refused_in_words() -> None:
    with pytest.raises(SuiteError, match="older form"):
        Scorecard.from_facts({"overall": {}}, PARENTS)


def test_weights_are_named_by_what_computes() -> None:
    files = {"model.safetensors": "1", "config.json": "2", "README.md": "3"}
    name = model_sha256(files)
    assert model_sha256({**files, "README.md": "other", "tokenizer_config.json": "4"}) == name
    assert model_sha256({**files, "config.json": "quantised"}) != name
    assert model_sha256({**files, "model.safetensors": "merged"}) != name


def test_times_are_ranks_that_were_seen() -> None:
    results = [result(f"i{k}", "en", 1, seconds=k / 10, completion=10) for k in range(1, 101)]
    timing = Timing.of(results)
    assert timing is not None
    assert (timing.p50, timing.p95, timing.answers) == (5.0, 9.5, 100)
    assert timing.tokens_per_second == pytest.approx(1000 / 505)
    assert Timing(**timing.to_json()) == dataclasses.replace(timing, tokens_per_second=1.98)
    assert Timing.of([result("i", "en", 1, seconds=0.0)]) is None
