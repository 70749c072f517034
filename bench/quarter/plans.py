"""Plans of training steps, counted in processes of their own while the GPU is busy."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from bench.plan import devices
from bench.plan.pool import planners

from .cases import Case

# A plan takes one or two seconds, and there are eight at a time.
_WAIT_S = 30.0
_KIND = "training_step"


class Plans:
    """Plans for one device; to be used in a `with` block.

    Args:
        device: what the planner calls it, see `bench.plan.devices.device`.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._found: dict[tuple[str, tuple[str, ...]], Future[dict[str, Any]]] = {}
        self._pool: ProcessPoolExecutor = planners()

    def __enter__(self) -> Plans:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def expect(self, cases: Sequence[Case]) -> None:
        """Begins to plan those of the cases that are training steps."""
        for case in cases:
            if case.kind == _KIND and (case.key, case.pins) not in self._found:
                self._found[case.key, case.pins] = self._pool.submit(planned, self._device, case.asked["setup"])

    def of(self, case: Case) -> dict[str, Any] | None:
        """The plan of a training step; None of other cases, and where it takes too long."""
        if case.kind != _KIND:
            return None
        self.expect([case])
        with contextlib.suppress(TimeoutError):
            return self._found[case.key, case.pins].result(timeout=_WAIT_S)
        return None


def planned(device: str, setup: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes stored for backward and at the peak of a training step, and whether they fit: "yes", "tight" or "no".

    Where it cannot be planned, `error` says why.
    """
    from bench.plan.plan import Planner, Setup

    try:
        plan = Planner(devices.device(device)).plan(Setup.from_dict(setup))
    except Exception as error:  # the measurement will say more
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    sizes = plan.bytes
    return {"device": device, "peak": sizes.peak, "stored": sizes.stored, "reserved": sizes.reserved, "fit": plan.fit,
            "backends": plan.backends}  # fmt: skip
