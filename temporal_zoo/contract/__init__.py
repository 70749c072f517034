"""The contract of a mixer: functions that other projects can run on their mixers too.

    for check in CHECKS.values():
        check(lambda: MyMixer(16, MyMixer.Config()))

A check takes `make`, a function without arguments that returns a new mixer (on the meta device within
`torch.device("meta")`).  It raises `ContractError`; the message says what the failure would mean for an experiment.
Checks set the seed and restore the random state of the caller.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from temporal_zoo.contract import _building, _function, _inputs, _streaming, _tools, _training
from temporal_zoo.contract._common import Check, ContractError, Make

__all__ = ["CHECKS", "ContractError", "outcomes"]


def outcomes(make: Make) -> Iterator[tuple[str, str | None]]:
    """Runs all checks and yields (name, None or the reason of the failure); an error of the mixer is a failure too."""
    for name, check in CHECKS.items():
        try:
            check(make)
        except ContractError as failure:
            yield name, str(failure)
        except Exception as error:  # a mixer of another project may raise any error
            yield name, f"{type(error).__name__}: {error}"
        else:
            yield name, None


def _seeded(check: Check) -> Check:
    @functools.wraps(check)
    def seeded(make: Make) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            check(make)

    return seeded


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): _seeded(check)
    for module in (_function, _streaming, _inputs, _training, _tools, _building)
    for name, check in vars(module).items()
    if name.startswith("check_")
}
