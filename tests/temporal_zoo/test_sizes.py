"""Sizes without an upper bound: `build` refuses them before it asks for memory."""

import pytest
import torch

from temporal_zoo import build, get, names, registry
from temporal_zoo.errors import InvalidInput

# Loaded before any test runs: tests of the registry undo what is registered while they run.
BIMAMBA = {name: get(name) for name in names()}["bimamba"].mixer


@pytest.mark.parametrize(
    ("spec", "dim"),
    [
        ("bimamba:state=1000000000000", 64),
        ("mamba:state=100000000", 16),  # 13 GB: a machine may have them, and the process ends while it asks for them
        ("mamba:expand=1000000000", 16),
        ("bimamba:conv=1000000000000", 16),
        ("attn:heads=1000000000", 16),
        ("flash:features=" + "9" * 300, 16),
        ("attn:heads=1000000000:relative_bias=yes", 16),
        ("s4d:state=1000000000000", 16),
        ("s4d:mlp=1000000000000", 16),
        ("mamba", 10**9),
        ("attn", 2**31),
        ("identity", 10**12),
        ("flash", 10**30),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(spec, dim):
    def on_meta(module, name, parameter):
        assert parameter is None or parameter.is_meta, "memory was asked for"

    refused = pytest.raises(InvalidInput, match=r"more than 2,147,483,648 numbers|a whole number in 1\.\.")
    with torch.nn.modules.module.register_module_parameter_registration_hook(on_meta), refused:
        build(spec, dim)


def test_counting_a_large_mixer_draws_no_random_numbers():
    before = torch.get_rng_state()
    assert registry._has_possible_size(BIMAMBA, 512, BIMAMBA.Config())
    assert torch.equal(torch.get_rng_state(), before)
