"""A base is found, looked through, and described by what its licence rests on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.train import base as bases


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base, tmp_path / "model")
    return tmp_path / "model"


def test_fault_36_a_pickle_never_becomes_a_base(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(Refused, match=r"pytorch_model\.bin can run code"):
        bases.resolve("model", model.parent)


def test_the_seedling_is_a_base_with_its_licence() -> None:
    found = bases.resolve("seedling")
    assert found.facts["architecture"] == "Qwen3ForCausalLM"
    assert found.facts["licence"] == "Apache-2.0"
    assert found.facts["licence_declared"] == "apache-2.0"
    assert "model.safetensors" in found.files()


def test_a_folder_is_a_base_by_its_name_and_keeps_no_path(model: Path) -> None:
    found = bases.resolve("model", model.parent)
    assert (found.name, found.revision) == ("model", None)
    assert str(model.parent) not in json.dumps(dict(found.facts))
    (model / "LICENSE").write_text("You may do nothing.")
    assert bases.resolve("model", model.parent).facts["licence"] == "unknown"
    (model / "LICENSE").unlink()
    assert bases.resolve("model", model.parent).facts["licence"] == "unknown"


def test_a_base_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="there is no base 'no such thing'"):
        bases.resolve("no such thing", tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Refused, match="the hub cannot be reached"):
        bases.resolve("Qwen/Qwen3-0.6B", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match=r"has no \*\.safetensors"):
        bases.resolve("empty", tmp_path)
