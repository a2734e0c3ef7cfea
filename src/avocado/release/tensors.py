"""Tensors from a stream of a safetensors file's bytes: each allocated once and filled as they come.

The format is an eight-byte little-endian length, that many bytes of JSON, then the tensors' bytes
(https://huggingface.co/docs/safetensors). Knows nothing about where the bytes come from.
"""

from __future__ import annotations

import json
from typing import Any, Final

from avocado.errors import Refused

MAX_HEADER: Final = 16 * 1024 * 1024
_DTYPES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class Gathered:
    """Takes the bytes of the file ``name`` of ``size`` bytes, in order and in any pieces."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._head = bytearray()
        self._begin: int | None = None
        """Where the tensors' bytes begin, once the header is read."""
        self._at = 0
        self._tensors: dict[str, Any] = {}
        self._places: list[tuple[int, int, memoryview]] = []
        """(begin, end, memory) of each tensor, in the order of the file."""
        self._next = 0

    def take(self, piece: bytes) -> None:
        """The next bytes.

        Raises:
            Refused: they are no safetensors file's.
        """
        view = memoryview(piece)
        if self._begin is None:
            self._head += view
            if len(self._head) < 8:
                return
            length = int.from_bytes(self._head[:8], "little")
            if length > min(MAX_HEADER, self._size - 8):
                raise self._no("its header is longer than it may be")
            if len(self._head) < 8 + length:
                return
            self._begin = 8 + length
            self._read_header(bytes(self._head[8 : self._begin]))
            rest = bytes(self._head[self._begin :])
            self._head = bytearray()
            view = memoryview(rest)
        self._fill(view)

    def _fill(self, view: memoryview) -> None:
        while view and self._next < len(self._places):
            begin, end, memory = self._places[self._next]
            count = min(end - self._at, len(view))
            memory[self._at - begin : self._at - begin + count] = view[:count]
            self._at += count
            view = view[count:]
            if self._at == end:
                self._next += 1
        if view:
            raise self._no("it holds more than its tensors")

    def _read_header(self, text: bytes) -> None:
        import torch

        try:
            header = json.loads(text)
            header.pop("__metadata__", None)
            rows = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
            at = 0
            for name, entry in rows:
                begin, end = entry["data_offsets"]
                tensor = torch.empty(entry["shape"], dtype=getattr(torch, _DTYPES[entry["dtype"]]))
                if begin != at or end - begin != tensor.nbytes:
                    raise self._no("its tensors do not fill it without gap or overlap")
                at = end
                self._tensors[name] = tensor
                if tensor.nbytes:
                    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
                    self._places.append((begin, end, memoryview(flat).cast("B")))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise self._no(f"its header is damaged ({error!r})") from error
        if self._begin is None or at != self._size - self._begin:
            raise self._no("its tensors do not fill it")

    def done(self) -> dict[str, Any]:
        """Tensors by name, after the last byte.

        Raises:
            Refused: bytes are missing.
        """
        if self._begin is None or self._next < len(self._places):
            raise self._no("it ends too early")
        return self._tensors

    def _no(self, why: str) -> Refused:
        return Refused(f"{self._name} is no safetensors file: {why}")
