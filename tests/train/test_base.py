"""What may come in as a base: safetensors that are what they say, and nothing that runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.train import base as bases


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base, tmp_path / "model")
    return tmp_path / "model"


def change(path: Path, **more: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def header(path: Path, edit: Callable[[dict[str, dict[str, object]]], None]) -> None:
    """Rewrites a safetensors header, the tensors' bytes left as they are."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    value = json.loads(data[8 : 8 + length])
    edit(value)
    made = json.dumps(value).encode()
    path.write_bytes(len(made).to_bytes(8, "little") + made + data[8 + length :])


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "extra/weights.pt", "state.pkl", "modeling_x.py", "x.so"]
)
def test_fault_36_what_can_run_code_is_refused_by_name(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"\x80\x04")
    with pytest.raises(Refused, match=name):
        bases.check(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_fault_36_auto_map_is_refused(model: Path, name: str) -> None:
    change(model / name, auto_map={"AutoModelForCausalLM": "modeling.Custom"})
    with pytest.raises(Refused, match=f"{name} asks for code of its own"):
        bases.check(model)


def test_fault_36_every_file_is_named_at_once(model: Path) -> None:
    (model / "a.bin").touch()
    (model / "model.safetensors").unlink()
    with pytest.raises(Refused) as caught:
        bases.check(model)
    assert len(caught.value.reasons) == 2


def first(value: dict[str, dict[str, object]]) -> dict[str, object]:
    return value[min(key for key in value if key != "__metadata__")]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda value: first(value).update(data_offsets=[0, 10**15]), "damaged header"),
        (lambda value: first(value).update(shape=[10**12, 10**12]), "damaged header"),
        (lambda value: first(value).update(shape=[-1, 4]), "damaged header"),
        (lambda value: first(value).pop("data_offsets"), "damaged header"),
        (lambda value: value.pop(max(value)), "lying header"),
        (lambda value: value.update(copy=dict(first(value))), "lying header"),
    ],
)
def test_fault_37_a_lying_header_is_refused(
    model: Path, edit: Callable[[dict[str, dict[str, object]]], None], said: str
) -> None:
    header(model / "model.safetensors", edit)
    with pytest.raises(Refused, match=said):
        bases.check(model)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\xff" * 64, (2**40).to_bytes(8, "little")])
def test_fault_37_a_header_longer_than_the_file_is_refused(model: Path, data: bytes) -> None:
    (model / "model.safetensors").write_bytes(data)
    with pytest.raises(Refused, match="its header is longer than the file"):
        bases.check(model)


@pytest.mark.parametrize("target", ["../model.safetensors", "missing.safetensors", "/etc/passwd"])
def test_fault_37_an_index_that_leaves_the_folder_is_refused(model: Path, target: str) -> None:
    index = {"weight_map": {"model.embed_tokens.weight": target}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Refused, match="which is no file beside it"):
        bases.check(model)


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
