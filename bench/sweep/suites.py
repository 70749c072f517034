"""The suites of `zoo bench --suite NAME`, each a list of cases.  No torch.

`quick`    every mixer on a CPU in minutes, at the same number of frames in all rows; and three whole models
`paper`    the models and lengths of Table 2 and Figure 6 of arXiv 2403.07711, and fused attention
`scaling`  every mixer from 16 to 8192 frames, and the paper's network around four of them
"""

from __future__ import annotations

from collections.abc import Callable

from bench.paper.facts import BIMAMBA_64, MODELS, TABLE_2
from temporal_zoo.registry import names

from .case import Case, expand

# Repetitions on a GPU, whose time is often limited.
ON_GPU = 3
# Rows x frames: enough to fill a GPU, and few enough for minutes on two CPU cores.
_ON_GPU, _ON_CPU = 2**20, 2**13


def quick(device: str, dtype: str) -> list[Case]:
    """Every mixer from 16 to 1024 frames; attention of both kinds and a state space model in the tiny network."""
    total = _ON_CPU if device == "cpu" else _ON_GPU
    bare = expand(layers=",".join(names()), lengths="16,64,256,1024", level="mixer", total=total,
                  device=device, dtype=dtype)  # fmt: skip
    return bare + [
        case
        for mode in ("train", "sample")
        for case in expand(layers="attn,flash,bimamba", lengths="16,64,256", level="model", mode=mode,
                           device=device, dtype=dtype)
    ]  # fmt: skip


def paper(device: str, dtype: str) -> list[Case]:
    """Training and sampling steps for one clip of 32 x 32 pixels, the load of one of the paper's eight GPUs."""
    cases = []
    for mode in ("train", "sample"):
        for frames, sizes in TABLE_2.items():
            for size in sizes:
                mixers = ["bimamba"] if size == "175M" else [attention(size), "bimamba"]
                if size == BIMAMBA_64:
                    mixers += ["flash:heads=8"] + ["mamba"] * (frames == 256)
                cases += _around(size, mixers, str(frames), mode, device, dtype)
            if frames == 256:
                cases += _around("71.2M", ["attn:heads=9:relative_bias=yes"], "256", mode, device, dtype)
    return cases


def scaling(device: str, dtype: str) -> list[Case]:
    """Bare mixers at ten lengths, each twice the one before; on a GPU also training steps of the paper's network."""
    lengths = [2**power for power in range(4, 14)]
    total = _ON_CPU if device == "cpu" else _ON_GPU
    bare = expand(layers=",".join(names()), lengths=",".join(map(str, lengths)), level="mixer", total=total,
                  device=device, dtype=dtype)  # fmt: skip
    if device == "cpu":
        return bare
    mixers = [attention(BIMAMBA_64), "flash:heads=8", "mamba", "bimamba"]
    return bare + _around(BIMAMBA_64, mixers, ",".join(map(str, lengths[:7])), "train", device, dtype)


def attention(size: str) -> str:
    """The spec of the paper's attention layers in the network that has this size with SSM layers."""
    return f"attn:heads={MODELS[size].heads}:relative_bias=yes"


def _around(size: str, mixers: list[str], lengths: str, mode: str, device: str, dtype: str) -> list[Case]:
    return expand(layers=",".join(mixers), lengths=lengths, level="model", mode=mode, preset=f"paper-{size}", size=32,
                  device=device, dtype=dtype)  # fmt: skip


# Name -> function of device and precision, default device, default precision, default repetitions.
SUITES: dict[str, tuple[Callable[[str, str], list[Case]], str, str, int]] = {
    "quick": (quick, "cpu", "float32", 8),
    "paper": (paper, "cuda", "float32", ON_GPU),
    "scaling": (scaling, "cuda", "bfloat16", ON_GPU),
}
