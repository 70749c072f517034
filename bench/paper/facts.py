"""The numbers of arXiv 2403.07711: sizes, memory, seconds, configurations, and how the memory column is read.

The three packages, the docs and the tests take these numbers from here.  Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass

ARXIV = "2403.07711"
GPUS = 8
GPU = "a100-40gb"
LENGTHS = (16, 64, 256)
NOISE_LEVELS = 256  # the sampler visits all of them

# The code of the paper counts these numbers as parameters and never trains them; our network does not hold them.
# Networks with attention: frequencies of the rotary embedding.  Networks with state space layers: the table of the
# relative bias, which has this many numbers for each head.
ROTARY_FREQUENCIES = 16
BIAS_BUCKETS = 32


@dataclass(frozen=True)
class Model:
    """A model of Tables 1 to 4.

    Args:
        mixer: name of its temporal layer in our registry.
        width: channels of the first level.
        parameters: numbers in `parameters()` of the official classes.
    """

    mixer: str
    width: int
    parameters: int

    @property
    def heads(self) -> int:
        """Heads of the temporal attention."""
        return self.width // 8

    @property
    def untrained(self) -> int:
        """Parameters that the official code counts and never trains."""
        return ROTARY_FREQUENCIES if self.mixer == "attn" else BIAS_BUCKETS * self.heads


# The printed size names a model.
MODELS = {
    "14.1M": Model("attn", 32, 14_083_475),
    "56.3M": Model("attn", 64, 56_279_827),
    "71.2M": Model("attn", 72, 71_221_555),
    "225M": Model("attn", 128, 225_011_219),
    "900M": Model("attn", 256, 899_828_755),
    "14.5M": Model("bimamba", 32, 14_498_179),
    "57.5M": Model("bimamba", 64, 57_477_891),
    "175M": Model("bimamba", 112, 175_350_339),
    "229M": Model("bimamba", 128, 228_881_923),
    "913M": Model("bimamba", 256, 913_468_419),
    "56.9M": Model("mamba", 64, 56_900_355),
}
# The two models of width 64 that the paper has at every length (Figure 6).
ATTENTION_64, BIMAMBA_64 = "56.3M", "57.5M"
# Parameters of the official classes at width 64 in variants that the text describes and the tables do not contain.
NOISE_WIDTH_1024 = 44_940_051  # attention, with the noise-level embedding of Table A.5
VARIANTS = {
    "s4d:bidirectional=no": 53_568_259,
    "s4d": 55_051_011,
    "s4d:flavour=mlp:bidirectional=no": 54_259_459,
    "s4d:flavour=mlp": 55_377_667,
    "s4d:flavour=v1": 61_218_563,
    "s4d:flavour=v1:bidirectional=no": 57_704_195,
    "s4d:flavour=v1:mlp=0": 59_114_243,
    "s4d:flavour=v1:mlp=0:bidirectional=no": 55_599_875,
    "mamba:flavour=literal": 56_713_987,
    "bimamba:flavour=vim:merge=sum": 57_115_395,
    "identity": 52_085_507,
}
# GiB that the official code stores for backward: width 64, one clip of 256 frames; `identity` has no temporal layers.
STORED_GIB = {"attn": 31.2, "flash": 16.5, "bimamba": 18.7, "identity": 8.9}


@dataclass(frozen=True)
class MemoryEntry:
    """One cell of the memory column: the gigabytes that the paper prints for training a model on clips of `frames`."""

    frames: int
    size: str
    memory_gb: float
    table: str = "2"


MEMORY = (
    MemoryEntry(16, "56.3M", 30.8),
    MemoryEntry(16, "900M", 101),
    MemoryEntry(16, "57.5M", 31.6),
    MemoryEntry(16, "913M", 106),
    MemoryEntry(64, "14.1M", 36.8),
    MemoryEntry(64, "56.3M", 59.8),
    MemoryEntry(64, "225M", 110),
    MemoryEntry(64, "900M", 224),
    MemoryEntry(64, "14.5M", 36.8),
    MemoryEntry(64, "57.5M", 59.2),
    MemoryEntry(64, "229M", 105),
    MemoryEntry(64, "913M", 219),
    MemoryEntry(256, "14.1M", 144),
    MemoryEntry(256, "56.3M", 276),
    MemoryEntry(256, "71.2M", 309),
    MemoryEntry(256, "14.5M", 96.1),
    MemoryEntry(256, "57.5M", 177),
    MemoryEntry(256, "175M", 298),
    MemoryEntry(256, "56.9M", 146, table="4"),
)
# The entries that the constant of our prediction is fitted to.
FITTED = tuple(entry for entry in MEMORY if entry.frames == 64)
# Number of frames -> the models of Table 2 with bidirectional state space layers.
TABLE_2 = {
    frames: tuple(
        entry.size
        for entry in MEMORY
        if entry.frames == frames and entry.table == "2" and MODELS[entry.size].mixer == "bimamba"
    )
    for frames in LENGTHS
}

# Number of frames -> pairs of an attention and a state space model, each with the seconds of one sample.  The models of
# a pair have the same width, except in the last pair.
SECONDS = {
    16: ((("56.3M", 6.11), ("57.5M", 5.49)), (("900M", 18.2), ("913M", 20.6))),
    64: (
        (("14.1M", 8.19), ("14.5M", 5.76)),
        (("56.3M", 13.4), ("57.5M", 10.3)),
        (("225M", 29.5), ("229M", 23.3)),
        (("900M", 68.1), ("913M", 50.9)),
    ),
    256: ((("14.1M", 29.6), ("14.5M", 19.2)), (("56.3M", 61.1), ("57.5M", 39.3)), (("71.2M", 70.8), ("175M", 76.6))),
}

# The official code ran attention that stores its weights, and the scan of mamba_ssm between plain torch operations.
PINS = {"attention": "reference", "causal_conv": "reference", "selective_scan": "mamba_ssm_plain"}

READING = (
    "We read the memory column as the GiB that eight GPUs hold together when each trains on one clip in float32. The "
    "paper names A100s of 40 GB and prints up to 309 GB. One GPU cannot hold that, so the column must be a sum. "
    "Divided by eight, the two largest models at 256 frames need 38.6 and 37.3 GB, which just fit. Our count for one "
    "clip, times eight, has the right size in every row."
)

CONTRADICTIONS = (
    "The memory column is a sum over eight GPUs. The text does not say so, and Figure 4 shows the column on an axis in "
    "MB.",
    "Table A.5 gives the noise-level embedding 1,024 channels. The printed sizes need 32 times the width; with 1,024 "
    f"channels the 56.3M model would have {NOISE_WIDTH_1024:,} parameters.",
    "The paper names Vim as the source of its layer, but its step sizes have twice the rank of Vim's and its "
    "projections have biases. With Vim's own layer the 57.5M model would have "
    f"{VARIANTS['bimamba:flavour=vim:merge=sum']:,} parameters; with Mamba's own layer the 56.9M model would have "
    f"{VARIANTS['mamba:flavour=literal']:,}.",
    "The paper says that spatial attention is linear with 64 features per head. In the code a head has 32 features, "
    "and the attention at the bottom is full softmax attention.",
    "Equation 9 has exp(A) where the code has exp(delta A), and the text discretises B by zero-order hold where the "
    "code takes an Euler step.",
    "The learning rate is 1e-5 in the paper and 1e-4 in the command of the README; the numbers of training "
    "steps are 100,000 and 110,000.",
    "The paper says that state space models reach the same quality with less memory. At equal width and 256 frames, "
    "FVD on MineRL is 381 (state space) against 383 (attention), and on CARLA 256 against 241; at matched memory, on "
    "CARLA 206 against 196. On CARLA the state space model is worse both times.",
    "The attention of the paper stores the weights of all pairs of frames. The paper does not compare fused attention, "
    "which does not store these weights; the control above does.",
    "The official code computes FVD from clips in [0, 1] with a network that expects [-1, 1], and compares with the "
    "training clips.",
    "The times are of one GPU without synchronisation, and their mean includes the first calls.",
)
