"""Data sets of Hugging Face: saved folders, and the hub, which a stand-in on this machine plays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from avocado.data import hugging_face
from avocado.data.example import Example
from avocado.data.intake import Intake
from avocado.data.sources import Source
from avocado.errors import Refused
from tests.data.hub import COMMIT, hub


def talk(question: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "yes"}]
    return {"messages": turns}


def read(*sources: Source) -> list[str]:
    found = list(Intake(sources))
    assert all(isinstance(each, Example) for each in found)
    return [each.user_texts[0] for each in found if isinstance(each, Example)]


def test_a_saved_data_set_is_read_in_order(tmp_path: Path) -> None:
    asked = [f"question {number}" for number in range(150)]
    data = Dataset.from_list([talk(each) for each in asked])
    data.save_to_disk(tmp_path / "saved", num_shards=3)
    intake = Intake([Source(tmp_path / "saved")])
    rows = [each for each in intake if isinstance(each, Example)]
    assert [each.user_texts[0] for each in rows] == asked
    assert [each.row for each in rows] == list(range(1, 151))
    (facts,) = intake.facts()
    assert (facts["name"], facts["format"], facts["rows"]) == ("saved", "saved data set", 150)
    data.save_to_disk(tmp_path / "again", num_shards=1)
    again = Intake([Source(tmp_path / "again")])
    assert len(list(again)) == 150
    assert again.facts()[0]["sha256"] == facts["sha256"], "the rows count, not their shards"


def test_a_saved_data_set_of_splits_gives_the_one_that_is_wanted(tmp_path: Path) -> None:
    splits = {name: Dataset.from_list([talk(name)]) for name in ("train", "test")}
    DatasetDict(splits).save_to_disk(tmp_path / "all" / "saved")
    assert read(Source(tmp_path / "all" / "saved")) == ["train"]
    assert read(Source(tmp_path / "all" / "saved", split="test")) == ["test"]
    (tmp_path / "all" / "more.jsonl").write_text(json.dumps(talk("more")))
    assert read(Source(tmp_path / "all")) == ["more", "train"]
    with pytest.raises(Refused, match=r"has no split 'dev' \(it has: train, test\)"):
        Intake([Source(tmp_path / "all" / "saved", split="dev")])


def test_fault_41_a_damaged_saved_data_set_is_refused(tmp_path: Path) -> None:
    Dataset.from_list([talk("a")]).save_to_disk(tmp_path / "saved")
    (shard,) = (tmp_path / "saved").glob("*.arrow")
    shard.write_bytes(b"damaged")
    with pytest.raises(Refused, match="is a damaged data set"):
        Intake([Source(tmp_path / "saved")])
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict" / "dataset_dict.json").write_text("{")
    with pytest.raises(Refused, match="is a damaged data set"):
        Intake([Source(tmp_path / "dict")])


@pytest.mark.parametrize("name", ["hf://", "hf://owner", "hf://owner/name@", "hf://a/b/c/d"])
def test_what_is_no_name_of_a_data_set_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="is no data set: write hf://owner/name"):
        hugging_face.at(name, "train")


SCRIPT = """
import json, sys
from avocado.data.intake import Intake
from avocado.data.sources import Source
from avocado.errors import Refused
for path, split in json.loads(sys.argv[1]):
    try:
        intake = Intake([Source(path, split=split)])
        print(json.dumps([len([*intake]), intake.facts()]))
    except Refused as error:
        print(json.dumps(error.reasons[0]))
"""


def in_another_process(tmp_path: Path, *asked: tuple[str, str], **environment: str) -> list[Any]:
    """Where the hub is, is read from the environment once: each hub needs a process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)],
        env={**os.environ, "HF_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_data_set_on_the_hub_is_streamed_at_one_commit(tmp_path: Path) -> None:
    rows = b"".join(json.dumps(talk(f"q {number}")).encode() + b"\n" for number in range(200))
    test = json.dumps(talk("test")).encode()
    with hub("owner/name", {"train.jsonl": rows, "test.jsonl": test}) as address:
        whole, pinned, split, no_split, no_revision, no_data = in_another_process(
            tmp_path,
            ("hf://owner/name", "train"),
            (f"hf://owner/name@{COMMIT}", "train"),
            ("hf://owner/name", "test"),
            ("hf://owner/name", "dev"),
            ("hf://owner/name@nope", "train"),
            ("hf://owner/other", "train"),
            HF_ENDPOINT=address,
            HF_HUB_OFFLINE="0",
            HF_DATASETS_OFFLINE="0",
        )
    assert whole == pinned
    count, (facts,) = whole
    assert (count, facts["rows"], facts["format"]) == (200, 200, "hub")
    assert facts["name"] == f"hf://owner/name@{COMMIT}"
    assert split[0] == 1
    assert "cannot be read: Bad split: dev" in no_split
    assert no_revision == "hf://owner/name@nope: the data set has no revision 'nope'"
    assert no_data.startswith("hf://owner/other: the hub has no such data set")


def test_without_a_network_the_way_out_is_said(tmp_path: Path) -> None:
    (said,) = in_another_process(tmp_path, ("hf://owner/name", "train"), HF_HUB_OFFLINE="1")
    assert said.startswith("hf://owner/name cannot be reached (")
    assert said.endswith("save_to_disk(folder)) and name that folder")
