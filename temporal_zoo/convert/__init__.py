"""Weights of other projects for the mixers of this one: each function reads a state dict and returns a `Converted`.

    from temporal_zoo.convert import from_mamba_ssm
    mixer = from_mamba_ssm(torch.load("layer.pt", weights_only=True)).mixer()

    from_mamba_ssm   the layer of mamba_ssm (arXiv 2312.00752)             -> mamba
    from_vim         the bidirectional "v2" layer of Vim (arXiv 2401.09417) -> bimamba
    from_official    the temporal layers of arXiv 2403.07711's own code     -> attn, linattn, s4d, mamba, bimamba
    from_s4          the minimal S4D layer of state-spaces/s4 (2206.11893)  -> s4d
    from_lucidrains  temporal attention of video-diffusion-pytorch          -> attn

A function infers from a state dict what it holds (sizes, presence of biases) and requires as keywords what it does not
hold, such as the number of heads.  `prefix` selects one layer of a larger state dict.  Whole networks of arXiv
2403.07711's code become checkpoints with `zoo convert`.
"""

from temporal_zoo.convert._converted import ConversionError, Converted
from temporal_zoo.convert.lucidrains import from_lucidrains
from temporal_zoo.convert.mamba_ssm import from_mamba_ssm
from temporal_zoo.convert.official import from_official
from temporal_zoo.convert.s4 import from_s4
from temporal_zoo.convert.vim import from_vim

__all__ = [
    "ConversionError",
    "Converted",
    "from_lucidrains",
    "from_mamba_ssm",
    "from_official",
    "from_s4",
    "from_vim",
]
