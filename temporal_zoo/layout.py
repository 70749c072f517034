"""Mixes along the frame axis of tensors in the layouts of video models, such as "b c t h w"."""

from __future__ import annotations

import math
import re

import einops
import torch
from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.interface import Mixer
from temporal_zoo.ops import _transforms

_FRAMES, _CLIPS, _FEATURES = "t", "b", ("c", "d")


def over_frames(
    mixer: Mixer,
    x: Tensor,
    layout: str,
    /,
    *,
    lengths: Tensor | None = None,
    valid_mask: Tensor | None = None,
    **sizes: int,
) -> Tensor:
    """Applies a mixer along the frame axis of a tensor: `over_frames(mixer, x, "b c t h w")`.

    Every other axis but the features becomes part of the rows, in the order of the layout.

    Args:
        mixer: any mixer.
        x: a tensor in that layout.
        layout: the axes of x as einops writes them, for example "b t d", "b c t h w", "(b t) c h w", "b t (h w) c".
            `t` is the frame axis, `c` or `d` the features (of size `mixer.dim`), `b` the clips.  Other axes have any
            names.  einops needs the sizes of axes that share parentheses, all but one.
        lengths: (b,) int64, the number of real frames of each clip; those frames come first.
        valid_mask: (b, t) bool, True at real frames and False at padding, in place of `lengths`.  The real frames of a
            clip must come first.  torch's `key_padding_mask` is the opposite: pass `~key_padding_mask`.  For a mask of
            zeros and ones pass `attention_mask.bool()`.  Its values are read, which waits for a GPU; under
            torch.compile, other traces and torch.func they are not checked.
        sizes: sizes of axes by name, such as `t=16` for "(b t) c h w".
    Returns:
        a tensor with the shape, dtype and device of x; zero at padded frames.
    Raises:
        InvalidInput: the layout does not fit x or the mixer, or the real frames of a clip do not come first.
    """
    if not isinstance(x, Tensor):
        raise InvalidInput(f"x is of type {type(x).__name__}; over_frames takes a tensor in the layout {layout!r}")
    axes = _axes(layout)
    (features,) = (axis for axis in axes if axis in _FEATURES)
    rows = [axis for axis in axes if axis not in (_FRAMES, features)]
    order = " ".join([*rows, _FRAMES, features])
    unfolded = _rearranged(x, f"{layout} -> {order}", sizes)
    shape = dict(zip(order.split(), unfolded.shape, strict=True))
    if shape[features] != mixer.dim:
        raise InvalidInput(
            f"axis {features!r} of x has size {shape[features]} in {layout!r}; the mixer takes dim={mixer.dim}"
        )
    if lengths is not None or valid_mask is not None:
        if _CLIPS not in rows:
            raise InvalidInput(
                f"lengths and valid_mask are per clip, and the layout {layout!r} has no axis 'b' of clips"
            )
        lengths = lengths if valid_mask is None else _lengths(valid_mask, lengths, shape)
        lengths = _per_row(lengths, rows, shape)
    # The product and not -1, which no tensor without elements can resolve.
    folded = unfolded.reshape(math.prod(unfolded.shape[:-2]), *unfolded.shape[-2:])
    return _rearranged(mixer(folded, lengths).reshape(unfolded.shape), f"{order} -> {layout}", shape)


def _axes(layout: str) -> list[str]:
    """The names of the axes of a layout, in order."""
    axes = [axis for axis in re.findall(r"[^\s()]+", layout) if axis != "1"]
    if axes.count(_FRAMES) != 1 or sum(axis in _FEATURES for axis in axes) != 1:
        raise InvalidInput(
            f"the layout {layout!r} must name the frame axis 't' and one feature axis, 'c' or 'd', once each, "
            "such as 'b c t h w'"
        )
    if "..." in axes:
        raise InvalidInput(f"the layout {layout!r} must name every axis, such as 'b c t h w' and not '... t c'")
    return axes


def _rearranged(x: Tensor, pattern: str, sizes: dict[str, int]) -> Tensor:
    names = set(re.findall(r"[^\s()]+", pattern))
    if unknown := sizes.keys() - names:
        raise InvalidInput(f"the layout {pattern.partition(' ->')[0]!r} has no axis {sorted(unknown)[0]!r}")
    try:
        return einops.rearrange(x, pattern, **sizes)
    except einops.EinopsError as error:
        layout, reason = pattern.partition(" ->")[0], str(error).strip().splitlines()[-1].strip()
        raise InvalidInput(f"x is {tuple(x.shape)}, which does not fit the layout {layout!r}: {reason}") from error


def _lengths(valid_mask: Tensor, lengths: Tensor | None, shape: dict[str, int]) -> Tensor:
    """(b,) numbers of real frames from the mask of real frames, (b, t)."""
    if lengths is not None:
        raise InvalidInput("lengths and valid_mask say the same thing; pass one of them")
    wanted = (shape[_CLIPS], shape[_FRAMES])
    if not isinstance(valid_mask, Tensor) or valid_mask.shape != wanted or valid_mask.dtype != torch.bool:
        raise InvalidInput(
            f"valid_mask is {_described(valid_mask)}; expected a tensor (b, t) = {wanted} of torch.bool, True at real "
            "frames"
        )
    lengths = valid_mask.sum(dim=1)
    first = torch.arange(valid_mask.shape[1], device=valid_mask.device) < lengths[:, None]
    if _is_readable(valid_mask) and not bool((valid_mask == first).all() & valid_mask.any(dim=1).all()):
        raise InvalidInput(
            "valid_mask must be True at the first frames of every clip (at least one) and False after them; a mixer "
            "cannot skip frames in between: move the real frames to the front, or invert the mask if True means padding"
        )
    return lengths


def _is_readable(mask: Tensor) -> bool:
    """Whether the values can be read without breaking a trace."""
    plain = type(mask) is Tensor and not mask.is_meta
    return plain and not torch.compiler.is_compiling() and _transforms.active() is None


def _per_row(lengths: Tensor | None, rows: list[str], shape: dict[str, int]) -> Tensor:
    """The length of each clip, (b,), repeated for each of its rows."""
    wanted = (shape[_CLIPS],)
    if not isinstance(lengths, Tensor) or lengths.shape != wanted:
        raise InvalidInput(f"lengths is {_described(lengths)}; expected a tensor {wanted} of int64, one for each clip")
    return einops.repeat(lengths, f"b -> ({' '.join(rows)})", **{axis: shape[axis] for axis in rows if axis != _CLIPS})


def _described(value: object) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
