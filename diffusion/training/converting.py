"""Converts files: reads a state dict of another project, calls its converter, and writes the result."""

from __future__ import annotations

import inspect
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.training import checkpoint
from diffusion.training.official import convert_network, is_network
from temporal_zoo import convert
from temporal_zoo._support.files import written_whole
from temporal_zoo._support.packages import need
from temporal_zoo.config import nearest
from temporal_zoo.convert import ConversionError, Converted
from temporal_zoo.errors import UserError

_LISTED = 6  # dropped names in the report


def convert_file(path: Path, source: str, key: str | None, assignments: Sequence[str], out: Path) -> Iterator[str]:
    """Converts one file and yields the lines of a report.

    Args:
        path: .pt, .pth or .safetensors.
        source: name of a converter without "from_", such as "vim".
        key: which state dict of the file, where it holds several.
        assignments: keywords of the converter as "name=value".
        out: the file to write.

    Raises:
        ConversionError: the file holds no such layer or network, or a keyword is missing or unknown.
    """
    state = _state_dict(_read(path), key, path)
    given = dict(_assignment(text) for text in assignments)
    if source == "official" and "prefix" not in given and is_network(state):
        fps = _frame_rate(given.pop("fps", None))
        config, weights, dropped = convert_network(state, **_keywords(convert_network, given, state))
        checkpoint.save(out, {"config": config.to_dict(), "step": 0, "fps": fps, "average": weights})
        size = sum(tensor.numel() for tensor in weights.values())
        yield f"{out}: a network of {size:,} parameters with {config.model.mixer}; draw clips with: zoo sample {out}"
    else:
        converter: Callable[..., Converted] = getattr(convert, f"from_{source}")
        layer = converter(state, **_keywords(converter, given, state))
        with written_whole(out) as file:
            torch.save({"spec": str(layer.spec), "dim": layer.dim, "state": layer.state}, file)
        yield f'{out}: {layer.spec}, width {layer.dim}; build("{layer.spec}", {layer.dim}) loads its "state"'
        dropped = list(layer.dropped)
    if dropped:
        more = f" and {len(dropped) - _LISTED} more" if len(dropped) > _LISTED else ""
        yield f"left out, as training never uses them: {', '.join(dropped[:_LISTED])}{more}"


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        try:
            if path.suffix == ".safetensors":
                return need("safetensors.torch", f"reading {path.name}").load(file.read())
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ConversionError(
                f"{path} holds more than tensors and plain values, and reading it could run code of its author; save "
                "its state dict alone with torch.save in the project that wrote it"
            ) from error
        except (MemoryError, UserError):
            raise
        except Exception as error:  # a torn or foreign file fails in as many ways as there are formats
            reason = str(error).partition("\n")[0] or "the file ends too soon"
            raise ConversionError(f"{path} cannot be read as weights: {reason}") from error


def _state_dict(content: Any, key: str | None, path: Path) -> Mapping[str, Any]:
    """The state dict in a file, below `key` where there are several."""
    if not isinstance(content, Mapping):
        raise ConversionError(f"{path} holds a {type(content).__name__}, not a state dict")
    inside = {name: value for name, value in content.items() if _is_state(value)}
    if key is not None:
        if key not in inside:
            raise ConversionError(f"{path} has no state dict {key!r}{nearest(key, inside)}; it has {_list(inside)}")
        return inside[key]
    if _is_state(content):
        return content
    if len(inside) != 1:
        raise ConversionError(f"{path} holds {_list(inside) or 'no state dict'}; choose one with --key")
    return next(iter(inside.values()))


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(tensor, Tensor) for tensor in value.values())


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConversionError(f"{text!r} is no assignment; write --set NAME=VALUE, such as --set heads=8")
    return name, value


def _keywords(function: Callable[..., Any], given: Mapping[str, str], state: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a converter from texts; names those that are missing or unknown."""
    known = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    if unknown := [name for name in given if name not in known]:
        raise ConversionError(
            f"this conversion has no {unknown[0]!r}{nearest(unknown[0], known)}; it takes {_list(known)}"
        )
    if missing := [name for name, p in known.items() if p.default is p.empty and name not in given]:
        raise ConversionError(
            f"the file does not say {_list(missing)}; give {' '.join(f'--set {m}=...' for m in missing)}"
        )
    numbers = {name for name, p in known.items() if "int" in str(p.annotation)}
    return {name: _value(name, text, state, name in numbers) for name, text in given.items()}


def _value(name: str, text: str, state: Mapping[str, Any], is_number: bool) -> Any:
    if name == "relative_bias":
        if text == "none":
            return None
        if not isinstance(state.get(text), Tensor):
            raise ConversionError(f"the file has no tensor {text!r}{nearest(text, state)}; name one, or write none")
        return state[text]
    if not is_number:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise ConversionError(f"{name} is {text!r}; it must be a whole number above zero, such as --set {name}=8")
    return int(text)


def _frame_rate(text: str | None) -> float:
    if text is None:
        raise ConversionError("the file does not say fps; give --set fps=10, frames per second")
    try:
        fps = float(text)
    except ValueError:
        fps = math.nan
    if not 0 < fps < math.inf:
        raise ConversionError(f"fps is {text!r}; it must be a number above zero, such as --set fps=10")
    return fps


def _list(names: Any) -> str:
    return ", ".join(map(str, names))
