"""The vault: what it seals opens to the same bytes, and to nothing else than them."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.release import vault as rooms
from avocado.release.tensors import Gathered
from avocado.release.vault import PIECE, SUFFIX, Vault, is_sealed, key_of

VAULT = Vault(bytes(range(32)))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
def test_what_is_sealed_opens_to_the_same_bytes(tmp_path: Path, size: int) -> None:
    plain = secrets.token_bytes(size)
    path = tmp_path / "model.safetensors"
    path.write_bytes(plain)
    sealed = VAULT.seal(path)
    assert not path.exists()
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600
    assert b"".join(VAULT.open(sealed).pieces()) == plain
    assert size < 16 or plain[:16] not in sealed.read_bytes()


def test_a_changed_byte_anywhere_does_not_open(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rooms, "PIECE", 16)
    path = tmp_path / "w.safetensors"
    path.write_bytes(bytes(40))
    sealed = VAULT.seal(path)
    whole = sealed.read_bytes()
    for place in range(len(whole)):
        sealed.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Refused):
            list(VAULT.open(sealed).pieces())
        assert VAULT.digests(tmp_path) == {"w.safetensors": ""}
    for cut in (0, 10, 60, len(whole) - 1):
        sealed.write_bytes(whole[:cut])
        with pytest.raises(Refused):
            list(VAULT.open(sealed).pieces())


def test_pieces_cannot_be_moved_within_a_file_or_between_files(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(rooms, "PIECE", 16)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        path.write_bytes(bytes(32))
    one, two = (VAULT.seal(path) for path in paths)
    first, second = one.read_bytes(), two.read_bytes()
    head = len(first) - 2 * 32
    one.write_bytes(first[:head] + first[head + 32 :] + first[head : head + 32])
    with pytest.raises(Refused, match=r"a\.safetensors does not open"):
        list(VAULT.open(one).pieces())
    one.write_bytes(second)  # the other file, whole, under this name
    with pytest.raises(Refused, match=r"a\.safetensors does not open"):
        list(VAULT.open(one).pieces())


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"secret")
    sealed = VAULT.seal(tmp_path / "w.safetensors")
    with pytest.raises(Refused, match="or the vault has another key"):
        list(Vault(bytes(32)).open(sealed).pieces())


def test_a_folder_keeps_its_hashes_and_opens_to_itself(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    (folder / "2_Dense").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"one")
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"two")
    (folder / "config.json").write_text("{}")
    before = digest_folder(folder)
    assert VAULT.seal_folder(folder) == ["2_Dense/model.safetensors", "model.safetensors"]
    assert VAULT.seal_folder(folder) == []
    assert is_sealed(folder)
    assert VAULT.digests(folder) == before
    VAULT.open_into(folder, tmp_path / "plain")
    assert digest_folder(tmp_path / "plain") == before
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "plain" / "model.safetensors").stat().st_mode) == 0o600


def test_tensors_come_back_as_safetensors_reads_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "a": torch.randn(300, 1001),
        "b": torch.randn(7, 3).to(torch.bfloat16),
        "c": torch.arange(5),
        "d": torch.zeros(0, 4),
        "e": torch.tensor([True, False]),
        "f": torch.tensor(1.5, dtype=torch.float16),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    expected = load_file(tmp_path / "model.safetensors")
    VAULT.seal(tmp_path / "model.safetensors")
    found = VAULT.weights(tmp_path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=0, max_size=30), st.binary(max_size=60))
def test_a_stream_in_any_pieces_is_the_file_and_noise_is_refused(
    cuts: list[int], noise: bytes
) -> None:
    from safetensors.torch import save

    whole = save({"a": torch.arange(12).reshape(3, 4), "b": torch.ones(3)})
    gathered, at = Gathered("w", len(whole)), 0
    for cut in [*cuts, len(whole)]:
        gathered.take(whole[at : at + cut])
        at += cut
    found = gathered.done()
    assert torch.equal(found["a"], torch.arange(12).reshape(3, 4))

    def read(data: bytes) -> None:
        other = Gathered("w", len(data))
        other.take(data)
        other.done()

    for bad in (noise, whole[:-1], whole + b"x", whole[:8] + noise + whole[8 + len(noise) :]):
        if bad != whole:
            with pytest.raises(Refused, match="no safetensors file"):
                read(bad)


SIZE = 128
"""Mebibytes of weights in the test of memory."""

LOADER = """
import re, sys
from pathlib import Path
import torch
from avocado.release.vault import Vault
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
found = Vault(bytes(range(32))).weights(Path(sys.argv[1]))
assert sum(each.nbytes for each in found.values())
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_weights_never_sit_in_memory_twice(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(SIZE, 1 << 18)}, tmp_path / "model.safetensors")
    VAULT.seal(tmp_path / "model.safetensors")
    ran = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    grown = int(ran.stdout) / 1024
    assert SIZE * 0.9 < grown < SIZE * 1.3, f"{grown:.0f} MiB for {SIZE} MiB of weights"


def test_keys_are_refused_where_others_could_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(bytes(range(32)).hex() + "\n")
    file.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        key_of(file, None)
    file.chmod(0o600)
    assert key_of(file, None) == VAULT.key
    file.write_text("short")
    with pytest.raises(Refused, match="64 hexadecimal digits"):
        key_of(file, None)
    with pytest.raises(Refused, match="cannot be read"):
        key_of(tmp_path / "none", None)
    monkeypatch.setenv("VAULT", VAULT.key.hex())
    assert key_of(None, "VAULT") == VAULT.key
    monkeypatch.delenv("VAULT")
    with pytest.raises(Refused, match="is not set"):
        key_of(None, "VAULT")


def test_a_disk_that_fails_leaves_the_plain_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        VAULT.seal(path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]
    assert not (tmp_path / f"model.safetensors{SUFFIX}").exists()


def test_sealed_models_are_the_plain_ones_in_shards_and_for_vectors(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoModelForCausalLM

    from avocado.engine.model import load_pretrained

    seedling = Path(str(files("avocado") / "seedling" / "model"))
    text: Any = AutoModelForCausalLM.from_pretrained(seedling, dtype=torch.float32)
    for kind, model in ((AutoModelForCausalLM, text), (AutoModel, text.model)):
        folder = tmp_path / kind.__name__
        model.save_pretrained(folder, max_shard_size="2MB")
        assert len(list(folder.glob("*.safetensors"))) > 1
        plain = load_pretrained(kind, folder, "cpu", None).state_dict()
        VAULT.seal_folder(folder)
        assert not list(folder.glob("*.safetensors"))
        found = load_pretrained(kind, folder, "cpu", partial(VAULT.weights, folder)).state_dict()
        assert found.keys() == plain.keys()
        for name, tensor in plain.items():
            assert torch.equal(found[name], tensor), name
