"""Weights: safetensors headers held against the files, the index and the configuration.

Only headers are read, and none that is longer than a real one: nothing is allocated for what a
header claims. The format is an eight-byte little-endian length, that many bytes of JSON, then the
tensors' bytes (https://huggingface.co/docs/safetensors). Whether the numbers in the tensors are a
good model is for others to find out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused
from avocado.intake.document import parse_object, read_object

MAX_HEADER: Final = 16 * 1024 * 1024
"""Bytes of the longest header: room for 100,000 tensors in one file. The format allows 100 MB."""

MAX_INDEX: Final = 64 * 1024 * 1024

_ITEM_BYTES: Final = {
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
}
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d{1,9})\.")


@dataclass(frozen=True, slots=True)
class Header:
    """Tensor name → shape, of one file."""

    file: str
    shapes: Mapping[str, tuple[int, ...]]


def read_header(path: Path) -> Header:
    """Reads a header and checks it against the file: its length, and that the tensors fill the rest
    exactly, without gap or overlap.

    Raises:
        Refused: the header claims what the file does not hold.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > size - 8:
            raise Refused(f"{path.name} is no safetensors file: its header is longer than the file")
        if length > MAX_HEADER:
            raise Refused(
                f"{path.name} has a header of {length:,} bytes; at most {MAX_HEADER:,} are accepted"
            )
        try:
            tensors = dict(parse_object(handle.read(length)))
            _check_metadata(tensors.pop("__metadata__", {}))
            spans = sorted(_span(name, entry) for name, entry in tensors.items())
        except (ValueError, RecursionError) as error:
            raise Refused(f"{path.name} has a damaged header: {error}") from error
    position = 0
    for start, end in spans:
        if start != position:
            raise Refused(f"{path.name} has a lying header: its tensors overlap or leave gaps")
        position = end
    if position != size - 8 - length:
        raise Refused(f"{path.name} has a lying header: its tensors do not fill the file")
    return Header(path.name, {name: tuple(entry["shape"]) for name, entry in tensors.items()})


def _check_metadata(value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError("__metadata__ must map text to text")


def _span(name: str, entry: Any) -> tuple[int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} must state dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ValueError(f"{name!r} has the dtype {dtype!r}, which is not known")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"{name!r} has the shape {shape!r:.60} and the offsets {offsets!r:.60}")
    start, end = offsets
    if end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError(f"{name!r} has {end - start} bytes for the shape {shape!r:.60}")
    return start, end


def _naturals(value: object) -> bool:
    """A list of whole numbers that a 64-bit size can hold."""
    return isinstance(value, list) and all(
        type(each) is int and 0 <= each < 2**63 for each in value
    )


def check_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Checks every safetensors file of ``folder``, its index, and what ``config`` makes of them.

    Raises:
        Refused: a header lies, a tensor is in two files, an index leads elsewhere or names what is
            not there, or the configuration claims more than the weights hold.
    """
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
    headers = [read_header(path) for path in files]
    where: dict[str, str] = {}
    for header in headers:
        for name in header.shapes:
            if name in where:
                raise Refused(f"the tensor {name!r} is in {where[name]} and in {header.file}")
            where[name] = header.file
    for path in sorted(folder.glob("*.safetensors.index.json")):
        _check_index(path, where)
    _check_config(config, headers)


def _check_index(path: Path, where: Mapping[str, str]) -> None:
    weight_map = read_object(path, MAX_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(map(_is_text, weight_map.values())):
        raise Refused(f"{path.name} has no weight_map from tensors to files")
    for name in sorted(set(weight_map.values())):
        inside = name == Path(name).name and "\\" not in name and name.endswith(".safetensors")
        if not inside or not (path.parent / name).is_file():
            raise Refused(f"{path.name} names {name!r}, which is no file beside it")
    for tensor, name in weight_map.items():
        if where.get(tensor) != name:
            raise Refused(f"{path.name} says that {name} holds {tensor!r}, and it does not")
    files = set(weight_map.values())
    for tensor, name in where.items():
        if name in files and tensor not in weight_map:
            raise Refused(f"{name} holds {tensor!r}, which {path.name} does not name")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _check_config(config: Mapping[str, Any], headers: Sequence[Header]) -> None:
    """A configuration is what memory is allocated by, before any weight is read."""
    shapes = {name: shape for header in headers for name, shape in header.shapes.items()}
    layers = {int(found.group(1)) for name in shapes if (found := _LAYER.search(name))}
    rows = [shape[0] for name, shape in shapes.items() if name.endswith("embed_tokens.weight")]
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        claimed = part.get("num_hidden_layers")
        if layers and isinstance(claimed, int) and claimed > len(layers):
            raise Refused(
                f"config.json claims {claimed:,} layers and the weights hold {len(layers):,}"
            )
        words = part.get("vocab_size")
        if rows and isinstance(words, int) and words > max(rows):
            raise Refused(f"config.json claims {words:,} tokens and the weights hold {max(rows):,}")
