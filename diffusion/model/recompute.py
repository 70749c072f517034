"""Activation checkpointing that runs the same backends twice."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(block: Callable[..., Any], *arguments: Any) -> Any:
    """`block(*arguments)`, whose activations are not stored but computed again in backward.

    Both times under the same context variables: pinned backends (`temporal_zoo.ops.use_backend`) are lost otherwise, as
    backward may begin after their block has ended, and on CUDA it runs in a thread of its own, which inherits none.
    """
    if torch.compiler.is_compiling():  # a compiled function keeps its backends as constants
        return checkpoint(block, *arguments, use_reentrant=False)
    here = contextvars.copy_context()
    # A copy for each run, because no context can be entered twice at a time.
    return checkpoint(lambda *again: here.copy().run(block, *again), *arguments, use_reentrant=False)
