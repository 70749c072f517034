"""What arXiv 2403.07711 prints about sizes, memory and time, and how its memory column is read.  Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

ARXIV = "2403.07711"
GPUS = 8
GPU_MEMORY_GB = 40

# Size as printed -> parameters of the official classes, all counted that their `parameters()` holds.
SIZES = {
    "14.1M": 14_083_475,
    "56.3M": 56_279_827,
    "71.2M": 71_221_555,
    "225M": 225_011_219,
    "900M": 899_828_755,
    "14.5M": 14_498_179,
    "57.5M": 57_477_891,
    "175M": 175_350_339,
    "229M": 228_881_923,
    "913M": 913_468_419,
    "56.9M": 56_900_355,
}
# What its code counts and never trains, and ours does not hold: frequencies of the rotary embedding beside attention,
# and beside state space models the table of the relative bias, so many numbers for each of width / 8 heads.
ROTARY_FREQUENCIES = 16
BIAS_BUCKETS = 32


@dataclass(frozen=True)
class Entry:
    """A cell of the memory column: a model in training at so many frames, and the gigabytes that the paper prints."""

    frames: int
    size: str
    memory_gb: float
    table: str = "2"


MEMORY = (
    Entry(16, "56.3M", 30.8),
    Entry(16, "900M", 101),
    Entry(16, "57.5M", 31.6),
    Entry(16, "913M", 106),
    Entry(64, "14.1M", 36.8),
    Entry(64, "56.3M", 59.8),
    Entry(64, "225M", 110),
    Entry(64, "900M", 224),
    Entry(64, "14.5M", 36.8),
    Entry(64, "57.5M", 59.2),
    Entry(64, "229M", 105),
    Entry(64, "913M", 219),
    Entry(256, "14.1M", 144),
    Entry(256, "56.3M", 276),
    Entry(256, "71.2M", 309),
    Entry(256, "14.5M", 96.1),
    Entry(256, "57.5M", 177),
    Entry(256, "175M", 298),
    Entry(256, "56.9M", 146, table="4"),
)
FITTED = tuple(entry for entry in MEMORY if entry.frames == 64)

# Frames -> pairs of (attention, state space model), each with the seconds for one sample; alike in width, but the last.
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

# The backends that its code ran: attention that holds its weights, and mamba_ssm's scan with plain torch around it.
PINS = {"attention": "reference", "causal_conv": "reference", "selective_scan": "mamba_ssm_plain"}

READING = (
    "The memory column is read as GiB that eight GPUs hold together, one clip each, in float32. The paper names A100s "
    "of 40 GB and prints up to 309: no one of them holds that, so it is a sum. Divided by eight, the two largest "
    "models at 256 frames take 38.6 and 37.3, just what fits. And what is counted for one clip, times eight, has the "
    "right size in every row."
)

CONTRADICTIONS = (
    "The memory column is a sum over eight GPUs and nowhere says so; Figure 4 shows it on an axis in MB.",
    "Table A.5 gives the noise-level embedding 1,024 channels. The printed sizes need 32 times the width; with 1,024 "
    "the 56.3M model would have 44,940,051 parameters.",
    "The layer is called Vim's, but has twice its rank of step sizes and biases in its projections; with Vim's own the "
    "57.5M model would have 57,115,395 parameters, with Mamba's own the 56.9M one 56,713,987.",
    "Spatial attention is called linear with 64 features per head. In the code it has 32, and at the bottom it is full "
    "softmax attention.",
    "Equation 9 has exp(A) where the code has exp(delta A), and the text discretises B by zero-order hold where the "
    "code takes an Euler step.",
    "The learning rate is 1e-5 in the paper and 1e-4 in the command of the README; the steps are 100,000 and 110,000.",
    "State space models are said to reach the same quality with less memory. At equal width on MineRL at 256 frames "
    "FVD is 381 against 383, on CARLA 256 against 241, and at matched memory on CARLA 206 against 196: worse.",
    "Its attention holds the weights of all pairs of frames. No fused attention is compared, though it keeps no such "
    "weights: the control above.",
    "FVD is computed from clips in [0, 1] with a network that expects [-1, 1], against the clips that were trained on.",
    "Times are of one GPU without synchronisation and with the first calls in the mean.",
)
