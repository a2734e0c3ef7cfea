"""Kept answers: found again, bounded, and never wrong because a file was damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avocado.evaluate.cache import Cache


def filled(folder: Path, model: str = "m", count: int = 3) -> Path:
    cache = Cache(folder, model)
    for number in range(count):
        cache.put([f"answer {number}", 7], "asked", number)
    cache.close()
    (path,) = set(folder.glob("*.jsonl"))
    return path


def test_answers_are_found_again_by_model_and_question(tmp_path: Path) -> None:
    path = filled(tmp_path)
    again = Cache(tmp_path, "m")
    assert (len(again), again.get("asked", 1)) == (3, ["answer 1", 7])
    assert again.get("asked", 9) is None
    assert Cache(tmp_path, "another").get("asked", 1) is None
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_a_changed_byte_loses_its_line_and_no_other(tmp_path: Path, at: int) -> None:
    path = filled(tmp_path)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    again = Cache(tmp_path, "m")
    found = [again.get("asked", number) for number in range(3)]
    assert found.count(None) <= 2
    assert all(each in (None, [f"answer {n}", 7]) for n, each in enumerate(found))
    assert None in found


def test_a_line_that_was_cut_off_is_ignored_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    cache = Cache(tmp_path, "m")
    assert cache.get("asked", 2) is None
    cache.put("new", "asked", 2)
    cache.close()
    assert Cache(tmp_path, "m").get("asked", 2) == "new"
    assert Cache(tmp_path, "m").get("asked", 1) == ["answer 1", 7]


def test_files_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    for age, model in enumerate(("new", "middle", "old")):
        cache = Cache(tmp_path, model)
        cache.put("x" * 1000, "asked")
        cache.close()
        for path in tmp_path.glob("*.jsonl"):
            if path.stat().st_mtime > 2e6:
                os.utime(path, (1e6 - age, 1e6 - age))
    wanted = Cache(tmp_path, "middle", limit=2300)
    assert wanted.get("asked") is not None
    assert Cache(tmp_path, "new").get("asked") is not None
    assert Cache(tmp_path, "old").get("asked") is None


def test_a_folder_that_cannot_be_written_keeps_nothing_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file", "m")
    cache.put("answer", "asked")
    assert cache.get("asked") == "answer"
    assert Cache(tmp_path / "file", "m").get("asked") is None


def test_deleting_it_is_safe(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "m")
    cache.put(1, "a")
    for path in tmp_path.glob("*.jsonl"):
        path.unlink()
    cache.put(2, "b")
    assert (cache.get("a"), cache.get("b")) == (1, 2)
    assert len(Cache(tmp_path, "m")) == 0
