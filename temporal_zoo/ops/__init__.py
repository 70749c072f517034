"""Mathematical functions, each with a readable reference and faster backends that must agree with it."""

from temporal_zoo.ops._autocast import autocast
from temporal_zoo.ops._dispatch import BackendError, Op, ops, refusing_reference, tracing, use_backend
from temporal_zoo.ops._planning import Planned, planning

__all__ = [
    "BackendError",
    "Op",
    "Planned",
    "autocast",
    "ops",
    "planning",
    "refusing_reference",
    "tracing",
    "use_backend",
]
