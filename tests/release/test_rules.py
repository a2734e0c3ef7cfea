"""Rules are read strictly: a slip in ``[gate]`` is refused by name and never passes for a rule."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from avocado.configuration import read_config
from avocado.errors import Refused
from avocado.release.rules import Cost, Gain, Guard, Latency, Rules, parse_rules

WHOLE = """
must_gain = { suite = "dates", margin = 0.02, confidence = 0.99 }
guards = [
  { suite = "general", max_regression = 0.01 },
  { suite = "safety", max_regression = 0.02, per_language = false },
  { suite = "format" },
]
latency = { p50 = 0.5, p95 = 2, tokens_per_second = 20 }
cost = { max_ratio = 1.25, max_tokens = 200 }
"""


def test_every_rule_is_read() -> None:
    assert parse_rules(tomllib.loads(WHOLE), "avocado.toml") == Rules(
        must_gain=Gain("dates", 0.02, 0.99),
        guards=(
            Guard("general", 0.01),
            Guard("safety", 0.02, per_language=False),
            Guard("format"),
        ),
        latency=Latency(0.5, 2, 20),
        cost=Cost(1.25, 200),
    )


def test_several_gains_are_a_list() -> None:
    table = tomllib.loads('must_gain = [{ suite = "a" }, { suite = "b", margin = 0.1 }]')
    assert parse_rules(table, "x").gains == (Gain("a"), Gain("b", 0.1))
    assert Rules(must_gain=Gain("a")).gains == (Gain("a"),)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("guard = []", "guard"),
        ('guards = [{ suite = "a", max_regresion = 0.1 }]', "max_regresion"),
        ('guards = [{ suite = "a", max_regression = 2 }]', "shares, 0.02 for two points"),
        ('guards = [{ suite = "a", max_regression = 0 }]', "max_regression"),
        ('guards = [{ suite = "a" }, { suite = "a" }]', "guards names a suite twice"),
        ('must_gain = [{ suite = "a" }, { suite = "a" }]', "must_gain names a suite twice"),
        ("must_gain = { margin = 0.1 }", "suite"),
        ('must_gain = { suite = "a", confidence = 0.3 }', "confidence"),
        ('must_gain = { suite = "a", margin = "0.1" }', "margin"),
        ("latency = { p95 = 0 }", "p95"),
    ],
)
def test_a_slip_is_refused_by_name(line: str, named: str) -> None:
    with pytest.raises(Refused, match=named):
        parse_rules(tomllib.loads(line), "avocado.toml")


def test_the_workspace_hands_its_table_on(tmp_path: Path) -> None:
    path = tmp_path / "avocado.toml"
    path.write_text('name = "x"\n[gate]\nmust_gain = { suite = "dates" }\n')
    table = read_config(path).gate
    assert table is not None
    assert parse_rules(table, "avocado.toml").gains == (Gain("dates"),)
    path.write_text('name = "x"\n')
    assert read_config(path).gate is None
