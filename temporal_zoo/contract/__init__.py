"""The contract of a mixer, as plain functions that anybody can run over their own mixer:

    for check in CHECKS.values():
        check(lambda: MyMixer(16, MyMixer.Config()))

A check takes `make`, a function without arguments that returns a new mixer (on the meta device when it is called within
`torch.device("meta")`), and raises `ContractError` with a message that says what the failure would mean for an
experiment.  Checks draw from a random state of their own and leave the caller's as it was.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from temporal_zoo.contract import _building, _function, _inputs, _streaming, _tools, _training
from temporal_zoo.contract._probe import Check, ContractError, Make

__all__ = ["CHECKS", "ContractError", "outcomes"]


def outcomes(make: Make) -> Iterator[tuple[str, str | None]]:
    """Runs all checks and yields (name of the check, None or why it failed), also when the mixer itself raises."""
    for name, check in CHECKS.items():
        try:
            check(make)
        except ContractError as failure:
            yield name, str(failure)
        except Exception as error:  # whatever a stranger's mixer raises is a result here
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
