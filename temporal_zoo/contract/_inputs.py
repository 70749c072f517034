"""Checks of invalid inputs: a mixer must refuse lengths, layouts, dtypes and options that would give wrong results."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from temporal_zoo.config import ConfigError, hints
from temporal_zoo.contract._common import ContractError, Make, require, with_nonzero_weights
from temporal_zoo.errors import InvalidInput
from temporal_zoo.interface import StatefulMixer
from temporal_zoo.streaming import over_chunks


def check_lengths(make: Make) -> None:
    """Lengths of a wrong shape, dtype or range raise an error."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(3, 7, mixer.dim)
    wrong = {
        "one for three rows": torch.tensor([5]),
        "four for three rows": torch.tensor([5, 5, 5, 5]),
        "as floats": torch.tensor([5.0, 1.0, 7.0]),
        "as int32": torch.tensor([5, 1, 7], dtype=torch.int32),
        "of zero": torch.tensor([5, 0, 7]),
        "below zero": torch.tensor([5, -1, 7]),
        "above the number of frames": torch.tensor([5, 1, 8]),
    }
    for what, lengths in wrong.items():
        _refused(
            functools.partial(mixer, x, lengths),
            f"lengths {what} are accepted: a kernel could read and write outside the clip",
        )


def check_layout(make: Make) -> None:
    """Inputs other than (rows, frames, dim) of a float dtype with one frame or more raise an error with this layout."""
    mixer = with_nonzero_weights(make)
    dim = mixer.dim
    wrong = {
        "(rows, channels, frames)": torch.randn(3, dim, dim + 3),
        "of another width": torch.randn(3, 7, dim + 1),
        "(frames, dim), without rows": torch.randn(7, dim),
        "(clips, frames, height, width, dim)": torch.randn(1, 7, 2, 2, dim),
    }
    for what, x in wrong.items():
        message = _refused(
            functools.partial(mixer, x),
            f"an input {what} is accepted: the mixer would mix along an axis that is not time",
        )
        require(
            "(rows, frames" in message, f"the error about an input {what} does not name the expected layout: {message}"
        )
    integers, empty = torch.ones(3, 7, dim, dtype=torch.int64), torch.randn(3, 0, dim)
    _refused(functools.partial(mixer, integers), "integers are accepted: no gradient would reach the layers below")
    _refused(functools.partial(mixer, empty), "rows of zero frames are accepted: they contain no frame to mix")


def check_dtypes(make: Make) -> None:
    """Without autocast an input whose dtype differs from the weights raises an error; `mixer.to(dtype)` is enough."""
    x = torch.randn(3, 7, make().dim)
    for dtype in (torch.float64, torch.bfloat16):
        mixer = with_nonzero_weights(make)
        if any(parameter.is_floating_point() for parameter in mixer.parameters()):
            _refused(
                functools.partial(mixer, x.to(dtype)),
                f"float32 weights accept an input of {dtype}: the precision of a run would depend on the mixer",
            )
        y = mixer.to(dtype)(x.to(dtype))
        require(y.dtype == dtype, f"with all weights and the input in {dtype} the output is {y.dtype}")
        require(bool(y.isfinite().all()), f"with all weights in {dtype} the output is not finite")


def check_zero_rows(make: Make) -> None:
    """For zero rows the output, the gradient and the output in chunks have the right shapes."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(0, 7, mixer.dim, requires_grad=True)
    try:
        for lengths in (None, torch.zeros(0, dtype=torch.int64)):
            y = mixer(x, lengths)
            require(y.shape == x.shape, f"{tuple(x.shape)} becomes {tuple(y.shape)}")
            torch.autograd.grad(y.sum(), x)
        if isinstance(mixer, StatefulMixer):
            y = torch.cat(over_chunks(mixer, x.split(4, dim=1)), dim=1) if mixer.passes else x
            require(y.shape == x.shape, f"chunks of {tuple(x.shape)} become {tuple(y.shape)}")
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(
            f"zero rows raise {type(error).__name__}: {error}: a filter that removes all clips would end the run"
        ) from error


def check_finite_options(make: Make) -> None:
    """Options that are numbers do not accept infinity or NaN."""
    kind = type(make().config)
    for name, type_ in hints(kind).items():
        if type_ is not float and float not in get_args(type_):
            continue
        for value in (math.nan, math.inf, -math.inf):
            try:
                kind(**{name: value})
            except ConfigError as refusal:
                require(name in str(refusal), f"the error about {name}={value} does not name it: {refusal}")
            else:
                raise ContractError(f"{name}={value} is accepted: training would fail later, with another message")


def _refused(call: Callable[[], Tensor], message: str) -> str:
    """The text of the `InvalidInput` that a call raises; without one, raises `ContractError(message)`."""
    try:
        call()
    except InvalidInput as refusal:
        return str(refusal)
    except Exception as error:
        raise ContractError(f"{message} (raises {type(error).__name__} instead of InvalidInput: {error})") from error
    raise ContractError(message)
