"""The safetensors format: 8 bytes little-endian length of a JSON header, the header, then raw little-endian arrays.

This module reads and writes the format itself, because the digest of the whole file, including its header, identifies
the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion.evaluation import EvaluationError

_ALIGNMENT = 8


def load(path: Path) -> dict[str, np.ndarray]:
    """Reads the float32 arrays of a file by name; the arrays are read-only.

    Raises:
        EvaluationError: the file has another format, is cut short, or holds another type.
    """
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8:end])
        header.pop("__metadata__", None)
        arrays = {}
        for name, entry in header.items():
            if entry["dtype"] != "F32":
                raise ValueError(f"{name} is {entry['dtype']}, not F32")
            first, last = entry["data_offsets"]
            arrays[name] = np.frombuffer(content[end + first : end + last], "<f4").reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvaluationError(f"{path} is not a safetensors file of float32 arrays, or is damaged ({error})") from error
    return arrays


def length(content: bytes) -> int:
    """The length in bytes of the file that begins with `content`; for a damaged header, the end of the header."""
    end = 8 + int.from_bytes(content[:8], "little")
    try:
        entries = json.loads(content[8:end])
        return end + max(entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return end


def packed(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The content of a file with these float32 arrays, in this order."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    first = 0
    for name, array in arrays.items():
        last = first + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [first, last]}
        first = last
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    data = b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays.values())
    return len(text).to_bytes(8, "little") + text + data
