"""Whole networks of arXiv 2403.07711's own code as checkpoints of ours.

Its 3D convolutions have kernels of one frame, which become 2D ones, and its gains of shape (1, c, 1, 1, 1) become flat.
Beside state space models, its table of biases by distance is never used; its rotary frequencies are constants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion.config import ModelConfig, ProcessConfig, TrainConfig
from diffusion.data import DataConfig
from diffusion.model.backbones import build_network
from diffusion.model.mixer_text import explicit
from diffusion.process.process import Process
from temporal_zoo.convert import ConversionError, from_official

# What a trainer of that code saves: the network, within the process, within DataParallel.
_WRAPPERS = ("module.", "denoise_fn.")
_TABLE = "time_rel_pos_bias.relative_attention_bias.weight"
_TEMPORAL = ".fn.fn.fn."
# The table where no layer attends, buffers of the process around the network, and those of a profiler.
_UNUSED = frozenset(
    f"{_TABLE} betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod "
    "log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance "
    "posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2 total_ops total_params".split()
)
# Modules of theirs -> modules of ours, in that order; {n} is the number of a level.
_MODULES = {
    r"init_conv": "stem",
    r"init_temporal_layer": "stem_temporal",
    r"time_mlp\.1": "embed.layers.0",
    r"time_mlp\.3": "embed.layers.2",
    r"(downs|ups)\.(\d+)\.0": "{side}.{n}.blocks.0",
    r"(downs|ups)\.(\d+)\.1": "{side}.{n}.blocks.1",
    r"(downs|ups)\.(\d+)\.2": "{side}.{n}.spatial",
    r"(downs|ups)\.(\d+)\.3": "{side}.{n}.temporal",
    r"(downs|ups)\.(\d+)\.4": "{side}.{n}.resample",
    r"mid_block1": "mid_first",
    r"mid_spatial_attn": "mid_spatial",
    r"mid_temporal_layer": "mid_temporal",
    r"mid_block2": "mid_second",
    r"final_conv\.0": "final",
    r"final_conv\.1": "to_out",
}
# Inside these modules.
_PARTS = {
    "mlp.": "modulation.",
    "block1.proj.": "first.conv.",
    "block1.norm.": "first.norm.",
    "block2.proj.": "second.conv.",
    "block2.norm.": "second.norm.",
    "res_conv.": "shortcut.",
    "fn.fn.fn.": "",
    "fn.fn.": "",
}


def is_network(state: Mapping[str, Any]) -> bool:
    """Whether a state dict is one of such a network, with or without what surrounds it in a training run."""
    return any(name.endswith("init_temporal_layer.fn.norm.gamma") for name in _unwrapped(state))


def convert_network(
    state: Mapping[str, Any], *, size: int, frames: int, steps: int | None = None, attention: str | None = None
) -> tuple[TrainConfig, dict[str, Tensor], list[str]]:
    """A network as a configuration and weights of ours.

    Args:
        state: the state dict of the network, or of the process around it.
        size: height and width of its clips in pixels, which the state dict does not hold.
        frames: frames of its clips, which the state dict does not hold.
        steps: noise levels; needed where the state dict has no `betas`.
        attention: "softmax", or "linear" for linear temporal attention ("l-attn"), which the state dict of a network
            with attention does not say.

    Returns:
        the configuration, the weights, and the names that were left out.

    Raises:
        ConversionError: it is another network; the message says where it differs.
    """
    theirs = _unwrapped(state)
    if "null_cond_emb" in theirs or "time_mlp.5.weight" in theirs:
        raise ConversionError("this network has text conditions or a deeper time embedding, which ours lacks")
    table = _tensor(theirs, _TABLE)
    heads = table.shape[1]
    weights: dict[str, Tensor] = {}
    dropped: list[str] = []
    specs: dict[str, str] = {}
    slots = list(_slots(theirs))
    for slot, module, prefix in slots:
        attends = f"{prefix}to_qkv.weight" in theirs
        layer = from_official(
            theirs,
            heads=heads if attends else None,
            relative_bias=table if attends else None,
            attention=attention,
            prefix=prefix,
        )
        specs[slot] = str(layer.spec)
        dropped += [f"{prefix}{name}" for name in layer.dropped]
        for name, tensor in layer.state.items():
            # The first slot names the module that all slots share.
            shared = name.startswith("own.")
            weights[f"shared.stem.{name.removeprefix('own.')}" if shared else f"{module}.mixer.{name}"] = tensor
    if len(set(specs.values())) != 1:
        raise ConversionError(f"the layers of this network differ: {', '.join(sorted(set(specs.values())))}")
    layers = tuple(prefix for _, _, prefix in slots)
    for name, tensor in theirs.items():
        if name.startswith(layers):
            continue
        if name == _TABLE and "shared.stem.table.weight" in weights:
            continue
        if name in _UNUSED or name.endswith((".total_ops", ".total_params", "rotary_emb.freqs")):
            dropped.append(name)
            continue
        weights[_name(name)] = _squeezed(name, tensor)
    config = _config(theirs, specs["stem"], heads, size, frames, steps)
    _compare(config, weights)
    return config, weights, dropped


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    names = {}
    for name, value in state.items():
        short = name
        while wrapper := next((w for w in _WRAPPERS if short.startswith(w)), None):
            short = short.removeprefix(wrapper)
        names[short] = value
    return names


def _slots(theirs: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Slot, module of ours, and prefix of the layer of theirs."""
    levels = {side: sum(name.startswith(f"{side}.") and name.endswith(".3.fn.norm.gamma") for name in theirs)
              for side in ("downs", "ups")}  # fmt: skip
    yield "stem", "stem_temporal", f"init_temporal_layer{_TEMPORAL}"
    for i in range(levels["downs"]):
        yield f"down{i}", f"down.{i}.temporal", f"downs.{i}.3{_TEMPORAL}"
    yield "mid", "mid_temporal", f"mid_temporal_layer{_TEMPORAL}"
    for i in range(levels["ups"]):
        yield f"up{i}", f"up.{i}.temporal", f"ups.{i}.3{_TEMPORAL}"


def _name(theirs: str) -> str:
    """Our name of a parameter outside of the temporal layers."""
    for pattern, module in _MODULES.items():
        if match := re.match(rf"{pattern}\.", theirs):
            ours = module
            if match.groups():
                side, n = match.groups()
                ours = module.format(side=side.removesuffix("s"), n=n)
            rest = theirs[match.end() :]
            if rest == "fn.norm.gamma":
                return f"{ours}.{'gain' if 'temporal' in ours else 'norm.gain'}"
            part = next((part for part in _PARTS if rest.startswith(part)), "")
            return f"{ours}.{_PARTS.get(part, '')}{rest.removeprefix(part)}"
    raise ConversionError(f"{theirs} is no parameter of the network of arXiv 2403.07711's code")


def _squeezed(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("gamma"):
        return tensor.flatten()
    return tensor.squeeze(2) if tensor.ndim == 5 else tensor


def _tensor(theirs: Mapping[str, Any], name: str) -> Tensor:
    if not isinstance(theirs.get(name), Tensor):
        raise ConversionError(f"this is no network of arXiv 2403.07711's code: there is no tensor {name}")
    return theirs[name]


def _config(
    theirs: Mapping[str, Any], mixer: str, heads: int, size: int, frames: int, steps: int | None
) -> TrainConfig:
    width, channels, _, stem, _ = _tensor(theirs, "init_conv.weight").shape
    levels = sum(name.startswith("downs.") and name.endswith(".3.fn.norm.gamma") for name in theirs)
    widths = [_tensor(theirs, f"downs.{i}.3.fn.norm.gamma").numel() for i in range(levels)]
    model = ModelConfig(
        mixer=explicit(mixer),
        width=width,
        channels=channels,
        size=size,
        heads=heads,
        stem=stem,
        multipliers=tuple(each // width for each in widths),
        time_width=_tensor(theirs, "time_mlp.1.weight").shape[0] // width,
    )
    data = DataConfig(frames=frames, size=size)
    return TrainConfig(model=model, process=_process(theirs, steps), data=data)


def _process(theirs: Mapping[str, Any], steps: int | None) -> ProcessConfig:
    betas = theirs.get("betas")
    if betas is None:
        if steps is None:
            raise ConversionError("the file has no `betas`: give the number of noise levels (steps; 256 in the paper)")
        return ProcessConfig(steps=steps)
    config = ProcessConfig(steps=len(betas))
    if steps not in (None, len(betas)):
        raise ConversionError(f"the file has {len(betas)} noise levels, not {steps}")
    if not torch.allclose(betas.double().cpu(), Process.from_config(config).betas.double(), rtol=1e-4, atol=1e-7):
        raise ConversionError("the noise schedule of the file is not the cosine schedule with offset 0.008")
    return config


def _compare(config: TrainConfig, weights: Mapping[str, Tensor]) -> None:
    with torch.device("meta"):
        expected = build_network(config.model).state_dict()
    wrong = sorted(expected.keys() ^ weights.keys())
    wrong += [name for name in expected.keys() & weights.keys() if expected[name].shape != weights[name].shape]
    if wrong:
        raise ConversionError(
            f"the network differs from the one of arXiv 2403.07711 in {len(wrong)} parameters, such as {wrong[0]}"
        )
