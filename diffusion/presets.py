"""Named training configurations; `zoo train --preset NAME`, and `--set model.width=32` on top.

`tiny` is the default: minutes on two cores.  `demo` is what the shipped checkpoint was trained with.  The `paper-*`
presets are the models of arXiv 2403.07711 (Tables 1 to 4), to the parameter.
"""

from __future__ import annotations

from collections.abc import Callable

from diffusion.config import ModelConfig, OptimizerConfig, ProcessConfig, TrainConfig
from diffusion.data.config import DataConfig
from temporal_zoo.config import ConfigError, nearest


def tiny() -> TrainConfig:
    """About ten minutes on two cores, on generated mazes."""
    return TrainConfig(
        model=ModelConfig(
            slots=("down1", "down2", "mid", "up0", "up1"),
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
    """What the shipped checkpoint was trained with: `tiny` for longer, on the recorded walks that the package ships."""
    return tiny().override([
        "data.source=builtin:doom",
        "data.flip=yes",
        "steps=5000",
        "optimizer.decay=0.4",
        "test_every=250",
    ])  # fmt: skip


def paper(*, width: int = 64, frames: int = 256, mixer: str = "bimamba", source: str = "builtin:mazes") -> TrainConfig:
    """A model of arXiv 2403.07711 at 32x32, batch 8, lr 1e-5, T = 256, 100,000 steps; heads scale as width / 8."""
    if mixer == "attn":
        mixer = f"attn:heads={width // 8}:relative_bias=yes"
    return TrainConfig(
        model=ModelConfig(mixer=mixer, width=width, heads=width // 8),
        data=DataConfig(source=source, frames=frames),
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "tiny": tiny,
    "demo": demo,
    **{f"paper-{frames}": lambda frames=frames: paper(frames=frames) for frames in (16, 64, 256)},
}


def preset(name: str) -> TrainConfig:
    """The configuration of that name.

    Raises:
        ConfigError: no such preset; the message lists them.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset is named {name!r}{nearest(name, PRESETS)}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()


def model_preset(name: str) -> ModelConfig:
    """The network of that preset."""
    return preset(name).model
