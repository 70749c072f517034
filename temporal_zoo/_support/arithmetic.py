"""Which arithmetic torch uses on a GPU: set in one place for training, sampling, evaluation and the bench; recorded.

    TF32           off  Matrix products and convolutions of float32 tensors keep 24 bits of mantissa, not 11.  By
                        default torch has it off for products and on for convolutions, so that mixers would be compared
                        at two precisions.
    benchmark      off  cuDNN would choose kernels by timing them: another choice in each process, with other results
                        and another peak of memory.
    deterministic  off  Deterministic kernels are slower, and some operators have none.  An exact resume is promised on
                        the CPU, which needs no setting.

The old names of the switches (`allow_tf32`) are used on purpose: they exist in all versions from torch 2.8 on, and
torch's compiler still reads them, which raises an error after only some of the new ones (`fp32_precision`) were set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any


def set_arithmetic() -> None:
    """Gives this process the settings above, whatever it had before; a second call changes nothing."""
    import torch

    with _without_advice():
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)


def arithmetic() -> dict[str, Any]:
    """The settings as they are now, as plain values for a record; None where torch cannot tell."""
    import torch

    with _without_advice():
        return {
            "float32_matmul": _read(torch.get_float32_matmul_precision),
            "tf32_matmul": _read(lambda: torch.backends.cuda.matmul.allow_tf32),
            "tf32_cudnn": _read(lambda: torch.backends.cudnn.allow_tf32),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        }


def _read(setting: Callable[[], Any]) -> Any:
    try:
        return setting()
    except RuntimeError:  # old and new names of the switches were mixed by other code
        return None


def _without_advice() -> warnings.catch_warnings:
    """Torch 2.9 and 2.10 advise against the old names."""
    return warnings.catch_warnings(action="ignore")
