"""The private functions of torch that we use: one list, and what we expect of each in the torch that is installed."""

import ast
from functools import reduce
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
# How files of ours call parts of torch.
ALIASES = {"aten": "torch.ops.aten", "Tensor": "torch.Tensor", "torch": "torch", "nn": "torch.nn"}
# Whose attributes the private attributes of our variables are.
OWNERS = {"nn.Module": torch.nn.Module(), "UntypedStorage": torch.UntypedStorage, "Tensor": torch.Tensor}
FUNCTIONS = {
    "torch._C._are_functorch_transforms_active",
    "torch._C._functorch.is_legacy_batchedtensor",
    "torch._C._functorch.peek_interpreter_stack",
    "torch._foreach_lerp_",
    "torch.autograd.Variable._execution_engine.run_backward",
    "torch.nn.Module._backward_hooks",
    "torch.nn.Module._backward_pre_hooks",
    "torch.nn.Module._forward_hooks",
    "torch.nn.Module._forward_pre_hooks",
    "torch.UntypedStorage._cdata",
    "torch.nn.modules.module._has_any_global_hook",
    "torch.Tensor._is_view",
    "torch.Tensor._make_wrapper_subclass",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._python_dispatch._get_current_dispatch_mode",
    "torch.utils._python_dispatch.is_traceable_wrapper_subclass",
    "torch.utils._pytree.tree_flatten",
    "torch.utils._pytree.tree_leaves",
    "torch.utils._pytree.tree_map_only",
    "torch.utils._pytree.tree_unflatten",
}
_ENDS = "dropout_p is_causal"
# Operator -> its arguments and the number of its results.
OPERATORS = {
    "_scaled_dot_product_flash_attention_for_cpu": (f"query key value {_ENDS} attn_mask scale", 2),
    "_scaled_dot_product_flash_attention_for_cpu_backward": (
        f"grad_out query key value out logsumexp {_ENDS} attn_mask scale",
        3,
    ),
    "_scaled_dot_product_flash_attention": (f"query key value {_ENDS} return_debug_mask scale", 9),
    "_scaled_dot_product_flash_attention_backward": (
        "grad_out query key value out logsumexp cum_seq_q cum_seq_k max_q max_k "
        f"{_ENDS} philox_seed philox_offset scale",
        3,
    ),
    "_scaled_dot_product_efficient_attention": (f"query key value attn_bias compute_log_sumexp {_ENDS} scale", 4),
    "_scaled_dot_product_efficient_attention_backward": (
        "grad_out_ query key value attn_bias out logsumexp philox_seed philox_offset dropout_p grad_input_mask "
        "is_causal scale",
        4,
    ),
    "_scaled_dot_product_cudnn_attention": (
        f"query key value attn_bias compute_log_sumexp {_ENDS} return_debug_mask scale",
        9,
    ),
    "_scaled_dot_product_cudnn_attention_backward": (
        "grad_out query key value out logsumexp philox_seed philox_offset attn_bias cum_seq_q cum_seq_k max_q max_k "
        f"{_ENDS} scale",
        3,
    ),
}


def private_names(source):
    """Names of torch with a part that begins with one underscore, in a source file."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch" and not node.level:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Attribute):
            name = dotted(node)
            ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if name is None and node.attr.startswith("_") and not ours:
                owners = [f"torch.{owner}.{node.attr}" for owner, one in OWNERS.items() if hasattr(one, node.attr)]
                name = next(iter(owners), None)
            found |= {name} if name else set()
    private = {name for name in found if any(part[0] == "_" and part[:2] != "__" for part in name.split("."))}
    # Only the longest: torch._C is a part of torch._C._functorch.
    return {name for name in private if not any(other.startswith(f"{name}.") for other in private)}


def dotted(node):
    """`torch.a.b` as text, aliases written out; None of anything that does not begin with torch."""
    if isinstance(node, ast.Name):
        return ALIASES.get(node.id)
    before = dotted(node.value) if isinstance(node, ast.Attribute) else None
    return f"{before}.{node.attr}" if before else None


def lacks(name):
    """Why the torch that is installed does not have what we use; None if it has."""
    parts = name.split(".")[1:]
    try:
        # The hooks are attributes of each module, and not of the class.
        reduce(lambda thing, part: getattr(thing() if thing is torch.nn.Module else thing, part), parts, torch)
    except AttributeError:
        return f"torch {torch.__version__} has no {name}, which we use: see where with `grep -rn {parts[-1]}`"
    return None


def test_the_list_is_complete():
    files = [path for package in ("temporal_zoo", "diffusion", "bench") for path in (ROOT / package).rglob("*.py")]
    used = set().union(*(private_names(path.read_text(encoding="utf-8")) for path in files))
    assert used == FUNCTIONS | {f"torch.ops.aten.{name}" for name in OPERATORS}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_torch_has_it(name):
    assert lacks(name) is None, lacks(name)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_the_operator_takes_our_arguments(name):
    assert lacks(f"torch.ops.aten.{name}") is None, lacks(f"torch.ops.aten.{name}")
    schema = getattr(torch.ops.aten, name).default._schema
    found = " ".join(argument.name for argument in schema.arguments), len(schema.returns)
    assert found == OPERATORS[name], f"torch {torch.__version__} changed {name}"


def test_private_names_are_seen():
    source = """
from torch.utils._pytree import tree_map
from torch import Tensor
import torch.nn.functional as F
def f(x): return torch._C._here.g(x), aten._op(x), x._is_view(), torch.nn.Linear, x.__class__
def g(self, x): return self._indices, x._values(), x._ours
"""
    assert private_names(source) == {
        "torch.utils._pytree.tree_map",
        "torch._C._here.g",
        "torch.ops.aten._op",
        "torch.Tensor._is_view",
        "torch.Tensor._values",
    }
    assert "has no torch._C._nothing" in lacks("torch._C._nothing")
