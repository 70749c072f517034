"""Activation checkpointing with the same op backends in both runs."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(block: Callable[..., Any], *arguments: Any) -> Any:
    """`block(*arguments)`, whose activations backward recomputes.

    Both runs have the same context variables.  Otherwise the second run would lose pinned backends
    (`temporal_zoo.ops.use_backend`): backward may begin after the `with` block that pins them, and on CUDA it runs in
    another thread, which does not inherit context variables.
    """
    if torch.compiler.is_compiling():  # a compiled function holds its backends as constants
        return checkpoint(block, *arguments, use_reentrant=False)
    context = contextvars.copy_context()
    # Each run enters a copy, because two runs cannot enter one context at the same time.
    return checkpoint(lambda *again: context.copy().run(block, *again), *arguments, use_reentrant=False)
