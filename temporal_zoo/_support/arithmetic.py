"""Sets and records the arithmetic of torch on a GPU, for training, sampling, evaluation and the bench alike.

    TF32           off  Matrix products and convolutions of float32 tensors keep 24 bits of mantissa, not 11.  By
                        default torch switches it off for products and on for convolutions: mixers would be compared at
                        two precisions.
    benchmark      off  cuDNN would choose kernels by timing them.  The choice, and with it the results and the peak
                        memory, could differ between processes.
    deterministic  off  Deterministic kernels are slower, and some operators have none.  We promise an exact resume on
                        the CPU only, which needs no setting.

The code uses the old names of the switches (`allow_tf32`), because all versions from torch 2.8 on have them.  The
compiler of torch reads them too, and raises an error where only some of the new ones (`fp32_precision`) are set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any


def set_arithmetic() -> None:
    """Sets the arithmetic of this process as listed above."""
    import torch

    with _without_warnings():
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)


def arithmetic() -> dict[str, Any]:
    """Returns the present settings as plain values for a record; None where torch raises an error for one."""
    import torch

    with _without_warnings():
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
    except RuntimeError:  # other code mixed old and new names of the switches
        return None


def _without_warnings() -> warnings.catch_warnings:
    """Silences the warnings of torch 2.9 and 2.10 about the old names."""
    return warnings.catch_warnings(action="ignore")
