"""Options without an upper bound: `build` refuses too large sizes before it asks for memory."""

import pytest
import torch

from temporal_zoo import build, get, names, registry
from temporal_zoo.errors import InvalidInput

# Loaded before any test runs, because tests of the registry remove what is registered during them.
BIMAMBA = {name: get(name) for name in names()}["bimamba"].mixer


@pytest.mark.parametrize(
    ("spec", "dim"),
    [
        ("bimamba:state=1000000000000", 64),
        ("mamba:state=100000000", 16),  # 13 GB: the system may end a process that asks for them
        ("mamba:expand=1000000000", 16),
        ("bimamba:conv=1000000000000", 16),
        ("attn:heads=1000000000", 16),
        ("flash:features=" + "9" * 300, 16),
        ("attn:heads=1000000000:relative_bias=yes", 16),
        ("s4d:state=1000000000000", 16),
        ("s4d:mlp=1000000000000", 16),
        ("linattn:heads=1000000000", 16),
        ("gatedlin:features=1000000000", 16),
        ("mamba", 10**9),
        ("attn", 2**31),
        ("identity", 10**12),
        ("flash", 10**30),
    ],
)
def test_too_large_sizes_are_refused_before_memory_is_allocated(spec, dim):
    def on_meta(module, name, parameter):
        assert parameter is None or parameter.is_meta, "memory was allocated"

    refused = pytest.raises(InvalidInput, match=r"more than 2,147,483,648 numbers|a whole number in 1\.\.")
    with torch.nn.modules.module.register_module_parameter_registration_hook(on_meta), refused:
        build(spec, dim)


def test_counting_a_large_mixer_draws_no_random_numbers():
    before = torch.get_rng_state()
    assert registry._has_possible_size(BIMAMBA, 512, BIMAMBA.Config())
    assert torch.equal(torch.get_rng_state(), before)
