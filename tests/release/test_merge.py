"""Folding adapters: the merged model says what the adapted one said, or there is no release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.release import merge
from avocado.release.bundle import write_licences, write_weights
from avocado.release.publish import publish_folder
from avocado.seedling import PATH


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on the seedling with weights that change its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(PATH, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.02)
    adapted.save_pretrained(str(folder))
    return folder


def test_the_merged_model_answers_as_the_adapter_did(adapter: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    difference = write_weights(adapter, PATH, tmp_path)
    assert difference is not None
    assert difference < 1e-5
    write_licences(PATH, tmp_path, "changed", "Apache-2.0")
    assert (tmp_path / "NOTICE").read_text().endswith("changed\n")
    assert "Apache License" in (tmp_path / "LICENSE").read_text()
    base = AutoModelForCausalLM.from_pretrained(PATH)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert merged.dtype == base.dtype == torch.bfloat16
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert not torch.allclose(base(ids).logits, merged(ids).logits, atol=1e-2)


def test_a_merge_that_changes_answers_is_refused(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "TOLERANCE", 0.0)
    with pytest.raises(Refused, match="never evaluated"):
        write_weights(adapter, PATH, tmp_path)


def test_a_folder_without_safetensors_is_no_release(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps({}))
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match="no safetensors"):
        write_weights(tmp_path / "checkpoint", PATH, tmp_path / "out")


def test_publishing_never_overwrites_and_leaves_no_half(tmp_path: Path) -> None:
    publish_folder(PATH, tmp_path / "open")
    assert (tmp_path / "open" / "model.safetensors").is_file()
    with pytest.raises(Refused, match="exists"):
        publish_folder(PATH, tmp_path / "open")
    with pytest.raises(OSError, match="nowhere"):
        publish_folder(tmp_path / "nowhere", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["open"]
