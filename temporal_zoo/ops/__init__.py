"""Mathematical functions with a readable reference and any number of faster bodies that must agree with it."""

from temporal_zoo.ops._dispatch import BackendError, Op, ops, refusing_reference, tracing, use_backend

__all__ = ["BackendError", "Op", "ops", "refusing_reference", "tracing", "use_backend"]
