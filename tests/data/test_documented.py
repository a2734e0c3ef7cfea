"""docs/data.md says what the code does: each shape with a row that is read, each format by name."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import msgspec

from avocado.data import shapes
from avocado.data.record import LEARNT_BY
from avocado.data.sources import FORMATS
from avocado.train.recipe import Data

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
ROW = re.compile(r"^\| `([a-z-]+)` \| `(\{.*\})` \| ([a-z, ]+) \|$", re.MULTILINE)


def test_each_shape_is_documented_by_a_row_that_is_read() -> None:
    documented = {name: (json.loads(row), methods) for name, row, methods in ROW.findall(PAGE)}
    assert documented.keys() == shapes.BY_NAME.keys()
    for name, (row, methods) in documented.items():
        shape = shapes.detect(row)
        assert shape is shapes.BY_NAME[name]
        served = [method for method, kind in LEARNT_BY.items() if kind in shape.readers]
        assert methods == ", ".join(served)
        for kind in shape.readers:
            assert isinstance(shapes.parse(row, shape, kind, shapes.Origin("a", 1)), kind)


def test_each_format_is_documented() -> None:
    for end in FORMATS:
        assert f"`{end}`" in PAGE


def test_the_documented_sources_are_a_recipes() -> None:
    block = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
    table = tomllib.loads(block)
    assert [msgspec.convert(each, str | Data) for each in table["data"]]
    assert table.keys() == {"data", "holdout"}
