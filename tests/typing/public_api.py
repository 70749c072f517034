"""Uses every public name of `temporal_zoo`; `mypy --strict` checks it, and a test executes it.

`assert_type` fails in mypy when an editor would show another type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

import torch
from torch import Tensor, nn

import temporal_zoo
from temporal_zoo import (
    InvalidInput,
    Mixer,
    MixerSpec,
    StatefulMixer,
    UserError,
    build,
    get,
    names,
    over_frames,
    register,
    tracing,
    use_backend,
)
from temporal_zoo.config import option


@register("scaled", summary="multiplies frames by a number", paper="none (example)", time="1", memory="1")
class Scaled(Mixer):
    """y = factor W x, frame by frame."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of `scaled`."""

        factor: float = option(1.0, "the number")

    config: Config
    causal = True
    order_blind = True

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        self.map = nn.Linear(dim, dim)

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        assert_type(self.config.factor, float)
        y: Tensor = self.map(x)  # torch's own layers return Any
        return self.config.factor * y


class Total(StatefulMixer):
    """y[t] = x[0] + ... + x[t]; not registered."""

    causal = True
    passes = (False,)

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return x.cumsum(1)

    def mix_chunk(self, x: Tensor, state: Any, *, reverse: bool = False) -> tuple[Tensor, Any]:
        y = self.mix(x, None) if state is None else self.mix(x, None) + state
        return y, y[:, -1:]


def main() -> None:
    """Calls every public name once."""
    assert_type(Scaled(4, Scaled.Config(factor=2.0)).config.factor, float)
    assert_type(names("*mamba*", causal=False, stateful=True), list[str])
    assert_type(get("scaled").mixer, type[Mixer])
    mixer = build("scaled", 4, factor=2.0, device="cpu", dtype=torch.float64)
    assert_type(mixer, Mixer)
    assert_type(mixer.spec, MixerSpec)
    assert_type(temporal_zoo.build(MixerSpec.parse(str(mixer.spec)), dim=4), Mixer)
    x = torch.ones(2, 4, 5, 3, dtype=torch.float64)
    assert_type(mixer(x[..., 0].mT), Tensor)
    with tracing() as ran, use_backend(selective_scan="reference"):
        y = over_frames(mixer, x, "b c t w", lengths=torch.tensor([5, 2]))
    assert_type(y, Tensor)
    assert_type(ran, dict[str, set[str]])
    total = Total(4, Total.Config())
    assert_type(total.mix_chunk(torch.ones(1, 2, 4), None), tuple[Tensor, Any])
    try:
        over_frames(mixer, x, "b c t w", valid_mask=torch.zeros(2, 5, dtype=torch.bool))
    except InvalidInput as error:
        parent: UserError = error
        print(parent)


if __name__ == "__main__":
    main()
