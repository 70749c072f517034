"""BackgroundPlans training steps in other processes while the GPU measures."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from bench.plan import devices
from bench.plan.pool import planners
from bench.sweep.outcome import first_line

from .cases import GpuCase

# A plan takes one or two seconds, and up to eight processes plan at the same time.
_WAIT_S = 30.0
_KIND = "training_step"


class BackgroundPlans:
    """Plans for one device; use it in a `with` block.

    Args:
        device: a text for `bench.plan.devices.device`.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._plans: dict[tuple[str, tuple[str, ...]], Future[dict[str, Any]]] = {}
        self._pool: ProcessPoolExecutor = planners()

    def __enter__(self) -> BackgroundPlans:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def expect(self, cases: Sequence[GpuCase]) -> None:
        """Starts to plan the training steps among the cases."""
        for case in cases:
            if case.kind == _KIND and (case.key, case.pins) not in self._plans:
                self._plans[case.key, case.pins] = self._pool.submit(plan_summary, self._device, case.request["setup"])

    def of(self, case: GpuCase) -> dict[str, Any] | None:
        """The plan of a training step; None for other cases, and if planning takes too long."""
        if case.kind != _KIND:
            return None
        self.expect([case])
        with contextlib.suppress(TimeoutError):
            return self._plans[case.key, case.pins].result(timeout=_WAIT_S)
        return None


def plan_summary(device: str, setup: Mapping[str, Any]) -> dict[str, Any]:
    """BackgroundPlans a training step: stored, peak and reserved bytes, and whether they fit ("yes", "tight" or "no").

    If the planner raises an exception, the result has only `error`, the message.
    """
    from bench.plan.plan import Planner, Setup

    try:
        plan = Planner(devices.device(device)).plan(Setup.from_dict(setup))
    except Exception as error:  # the measurement of the same setup reports the full error
        return {"error": first_line(error)}
    sizes = plan.bytes
    return {"device": device, "peak": sizes.peak, "stored": sizes.stored, "reserved": sizes.reserved, "fit": plan.fit,
            "backends": plan.backends}  # fmt: skip
