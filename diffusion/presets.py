"""Named training configurations: `zoo train --preset NAME`; `--set model.width=32` changes one field.

`tiny`, the default, takes minutes on two cores.  `demo` is the configuration of the shipped checkpoint.  `paper-57.5M`,
`paper-14.1M`, ... are the models of arXiv 2403.07711, named after their size in its tables; `--set data.frames=64`
gives shorter clips.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from diffusion.config import ModelConfig, OptimizerConfig, ProcessConfig, TrainConfig
from diffusion.data import DataConfig
from temporal_zoo.config import ConfigError, nearest


def tiny() -> TrainConfig:
    """Generated mazes; about ten minutes on two cores with `bimamba`."""
    return TrainConfig(
        model=ModelConfig(
            slots=("down2", "mid", "up0"),
            width=16,
            multipliers=(1, 2, 4),
            blocks=1,
            groups=4,
            heads=2,
            spatial="bottom",
            time_width=4,
            stem=3,
            modulated=True,
            zero_init=True,
        ),
        process=ProcessConfig(prediction="v", draw="stratified"),
        data=DataConfig(frames=16, stride=2),
        optimizer=OptimizerConfig(lr=3e-3, beta2=0.99, warmup=100, clip=1.0, ema=0.998, ema_warmup=True),
        steps=1000,
        batch=8,
        save_every=50,
        sample_every=250,
        test_every=50,
    )


def demo() -> TrainConfig:
    """The configuration of the shipped checkpoint: `tiny`, trained longer, on the recorded walks of the package."""
    return tiny().override([
        "data.source=builtin:doom",
        "data.flip=yes",
        "steps=6000",
        "optimizer.decay=0.4",
        "test_every=250",
    ])  # fmt: skip


# The models of the paper's Tables 1 to 4, by their printed size: mixer and width.
PAPER = {
    "14.1M": ("attn", 32),
    "56.3M": ("attn", 64),
    "71.2M": ("attn", 72),
    "225M": ("attn", 128),
    "900M": ("attn", 256),
    "14.5M": ("bimamba", 32),
    "57.5M": ("bimamba", 64),
    "175M": ("bimamba", 112),
    "229M": ("bimamba", 128),
    "913M": ("bimamba", 256),
    "56.9M": ("mamba", 64),
}


def paper(mixer: str, width: int) -> TrainConfig:
    """A model of arXiv 2403.07711: 256 frames of 32x32, batch 8, lr 1e-5, T = 256, 100,000 steps; heads are width / 8.

    Its number of parameters equals the paper's, minus the numbers that the paper's code counts and does not train: with
    `attn` 16 frequencies of the rotary embedding, with other mixers a bias table of 32 * heads that only `attn` uses.
    """
    if mixer == "attn":
        mixer = f"attn:heads={width // 8}:relative_bias=yes"
    return TrainConfig(model=ModelConfig(mixer=mixer, width=width, heads=width // 8), data=DataConfig(frames=256))


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "tiny": tiny,
    "demo": demo,
    **{f"paper-{size}": partial(paper, *row) for size, row in PAPER.items()},
}


def preset(name: str) -> TrainConfig:
    """The configuration of that name.

    Raises:
        ConfigError: no such preset; the message lists them.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset is named {name!r}{nearest(name, PRESETS)}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]()


def model_preset(name: str) -> ModelConfig:
    """The network of that preset."""
    return preset(name).model
