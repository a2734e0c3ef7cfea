"""Faults 36 and 37: bad checkpoints, each refused by the name of what is wrong in it."""

from __future__ import annotations

import io
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.errors import Refused
from avocado.intake import document, folder, weights
from tests.intake.conftest import CONFIG, SHAPES, Entries, entries, write_tensors

Spoil = Callable[[Path], object]


def test_a_good_model_comes_in_with_its_configuration(model: Path) -> None:
    assert folder.check_folder(model) == CONFIG


def put(name: str, data: bytes = b"\x80\x04") -> Spoil:
    def spoil(model: Path) -> None:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(data)

    return spoil


def archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as zipped:
        zipped.writestr("data.pkl", pickle.dumps({}))
    return data.getvalue()


def link(name: str, target: str) -> Spoil:
    return lambda model: (model / name).symlink_to(target)


def config(name: str, **more: object) -> Spoil:
    def spoil(model: Path) -> None:
        before = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**before, **more}))

    return spoil


REFUSED_BY_NAME: list[tuple[str, Spoil]] = [
    *[(name, put(name)) for name in ("pytorch_model.bin", "extra/weights.pt", "state.pkl")],
    *[(name, put(name)) for name in ("old.PTH", "model.ckpt", "scaler.joblib", "array.npy")],
    *[(name, put(name)) for name in ("modeling_x.py", "kernel.so", "tokenizer.PY")],
    *[(name, put(name)) for name in ("model.gguf", "model.onnx", "flax_model.msgpack")],
    ("weights.dat", put("weights.dat", pickle.dumps([1], protocol=4))),
    ("vocab", put("vocab", archive())),
    ("README.md", link("README.md", "/etc/passwd")),
    ("README.md", link("README.md", "../outside")),
    ("README.md", link("README.md", "nothing.md")),
    ("sub", link("sub", "..")),
    ("generation_config.json", lambda model: os.mkfifo(model / "generation_config.json")),
]


@pytest.mark.parametrize(("name", "spoil"), REFUSED_BY_NAME)
def test_fault_36_what_may_run_or_leave_the_folder_is_refused_by_name(
    model: Path, name: str, spoil: Spoil
) -> None:
    (model.parent / "outside").write_text("not ours")
    spoil(model)
    with pytest.raises(Refused, match=f"^{name} "):
        folder.check_folder(model)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.Custom"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "x.Y"}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.Y", None]}}),
        ("config.json", {"custom_pipelines": {"x": {"impl": "x.Y"}}}),
        ("config.json", {"parts": [{"auto_mapping": {"parent_library": "os"}}]}),
    ],
)
def test_fault_36_code_of_its_own_is_refused_wherever_it_is_asked_for(
    model: Path, name: str, more: dict[str, Any]
) -> None:
    config(name, **more)(model)
    with pytest.raises(Refused, match=f"{name} asks for code of its own"):
        folder.check_folder(model)


def test_every_wrong_file_is_named_at_once(model: Path) -> None:
    (model / "a.bin").touch()
    (model / "b.py").touch()
    (model / "model.safetensors").unlink()
    with pytest.raises(Refused) as caught:
        folder.check_folder(model)
    assert len(caught.value.reasons) == 3


def test_a_snapshot_of_the_hubs_cache_is_links_to_its_blobs(model: Path) -> None:
    cache = model.parent / "models--owner--name"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for path in model.iterdir():
        path.rename(cache / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert folder.check_folder(snapshot) == CONFIG
    (cache / "refs").write_text("x")
    (snapshot / "NOTICE").symlink_to("../../refs")
    with pytest.raises(Refused, match="NOTICE is a link that leaves the folder"):
        folder.check_folder(snapshot)


def header(edit: Callable[[Entries], object]) -> Spoil:
    def spoil(model: Path) -> None:
        value = entries()
        edit(value)
        write_tensors(model / "model.safetensors", value, size=4 * 64)

    return spoil


FIRST = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda value: value[FIRST].update(data_offsets=[0, 10**15]), "damaged header"),
        (lambda value: value[FIRST].update(shape=[10**12, 10**12]), "damaged header"),
        (lambda value: value[FIRST].update(shape=[-1, 4]), "damaged header"),
        (lambda value: value[FIRST].update(shape=[True, 32]), "damaged header"),
        (lambda value: value[FIRST].update(shape=8.0), "damaged header"),
        (lambda value: value[FIRST].update(data_offsets=[0.0, 128.0]), "damaged header"),
        (lambda value: value[FIRST].update(data_offsets=[0, 64, 128]), "damaged header"),
        (lambda value: value[FIRST].update(dtype="PICKLE"), "dtype 'PICKLE', which is not known"),
        (lambda value: value[FIRST].update(code="x"), "and nothing else"),
        (lambda value: value.update(__metadata__={"x": {}}), "__metadata__ must map text to text"),
        (lambda value: value[FIRST].pop("data_offsets"), "damaged header"),
        (lambda value: value.pop(FIRST), "overlap or leave gaps"),
        (lambda value: value.update(copy=dict(value[FIRST])), "overlap or leave gaps"),
        (lambda value: value.pop(max(value)), "do not fill the file"),
    ],
)
def test_fault_37_a_lying_header_is_refused(
    model: Path, edit: Callable[[Entries], object], said: str
) -> None:
    header(edit)(model)
    with pytest.raises(Refused, match=said):
        folder.check_folder(model)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\xff" * 64, (2**40).to_bytes(8, "little")])
def test_fault_37_a_header_longer_than_the_file_is_refused(model: Path, data: bytes) -> None:
    (model / "model.safetensors").write_bytes(data)
    with pytest.raises(Refused, match="its header is longer than the file"):
        folder.check_folder(model)


def test_fault_37_a_huge_header_is_refused_before_it_is_read(model: Path) -> None:
    with (model / "model.safetensors").open("wb") as handle:
        handle.write((10**11).to_bytes(8, "little"))
        handle.truncate(10**11 + 8)  # a sparse file: it claims a hundred gigabytes, and has none
    with pytest.raises(Refused, match="100,000,000,000 bytes; at most"):
        folder.check_folder(model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": {}, "a": {}}', "the key 'a' is there twice"),
        (b"[" * 100_000, "damaged header"),
        (b"\xff\xfe", "damaged header"),
        (b"[]", "it must hold an object"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "damaged header"),
    ],
)
def test_fault_37_a_header_that_readers_read_differently_is_refused(
    model: Path, text: bytes, said: str
) -> None:
    write_tensors(model / "model.safetensors", text, size=0)
    with pytest.raises(Refused, match=said):
        folder.check_folder(model)


def index(model: Path, weight_map: object) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "target",
    ["../model.safetensors", "/etc/passwd", "missing.safetensors", "..\\x.safetensors", "..", ""],
)
def test_fault_37_an_index_that_leaves_the_folder_is_refused(model: Path, target: str) -> None:
    index(model, dict.fromkeys(SHAPES, target))
    with pytest.raises(Refused, match="which is no file beside it"):
        folder.check_folder(model)


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        (None, "has no weight_map"),
        ({"a": 1}, "has no weight_map"),
        ({**dict.fromkeys(SHAPES, "model.safetensors"), "x": "model.safetensors"}, "does not"),
        ({FIRST: "model.safetensors"}, "does not name"),
    ],
)
def test_an_index_that_does_not_fit_the_files_is_refused(
    model: Path, weight_map: object, said: str
) -> None:
    index(model, weight_map)
    with pytest.raises(Refused, match=said):
        folder.check_folder(model)


def test_a_tensor_in_two_files_is_refused(model: Path) -> None:
    write_tensors(model / "more.safetensors", entries({FIRST: [8, 4]}))
    with pytest.raises(Refused, match=r"is in model\.safetensors and in more\.safetensors"):
        folder.check_folder(model)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"num_hidden_layers": 10**9}, "claims 1,000,000,000 layers and the weights hold 2"),
        ({"vocab_size": 10**12}, "claims 1,000,000,000,000 tokens and the weights hold 8"),
        ({"text_config": {"num_hidden_layers": 3}}, "claims 3 layers"),
    ],
)
def test_a_configuration_that_claims_more_than_the_weights_hold_is_refused(
    model: Path, more: dict[str, Any], said: str
) -> None:
    config("config.json", **more)(model)
    with pytest.raises(Refused, match=said):
        folder.check_folder(model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[1]", "must hold an object"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("{" + '"a": {' * 100_000, "is not JSON"),
    ],
)
def test_a_bad_configuration_is_refused(model: Path, text: str, said: str) -> None:
    (model / "config.json").write_text(text)
    with pytest.raises(Refused, match=said):
        folder.check_folder(model)


def test_json_of_gigabytes_is_refused_unread(model: Path) -> None:
    with (model / "vocab.json").open("wb") as handle:
        handle.truncate(10**10)
    with pytest.raises(Refused, match=r"vocab\.json holds 10,000,000,000 bytes"):
        folder.check_folder(model)
    with (model / "config.json").open("wb") as handle:
        handle.truncate(2 * folder.MAX_CONFIG)
    with pytest.raises(Refused, match=r"config\.json holds 2,097,152 bytes"):
        document.read_object(model / "config.json", folder.MAX_CONFIG)


def test_no_weights_no_configuration_no_model(model: Path) -> None:
    (model / "config.json").unlink()
    with pytest.raises(Refused, match=r"model has no config\.json"):
        folder.check_folder(model)
    (model / "model.safetensors").unlink()
    with pytest.raises(Refused, match=r"model has no \*\.safetensors"):
        folder.check_folder(model)
    (model / "model.safetensors").mkdir()
    with pytest.raises(Refused, match=r"model has no \*\.safetensors"):
        folder.check_folder(model)


def test_empty_tensors_and_scalars_are_tensors(tmp_path: Path) -> None:
    value = {
        "none": {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]},
        "one": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]},
    }
    write_tensors(tmp_path / "x.safetensors", value)
    assert weights.read_header(tmp_path / "x.safetensors").shapes == {"none": (0, 4), "one": ()}


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_spoilt_byte_is_refused_or_harmless_and_never_an_error(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch)
        write_tensors(model / "model.safetensors", entries())
        (model / "config.json").write_text(json.dumps(CONFIG))
        index(model, dict.fromkeys(SHAPES, "model.safetensors"))
        path = data.draw(st.sampled_from(sorted(model.iterdir())))
        spoilt = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(spoilt[: data.draw(st.integers(0, len(spoilt)))])
        with suppress(Refused):
            folder.check_folder(model)
