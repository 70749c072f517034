"""The kernel that measures the rate of exponentials."""

import pytest


@pytest.mark.parametrize("chip", [80, 90])
def test_the_kernel_of_exponentials_compiles_and_holds_nothing_but_them(chip):
    pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from bench.quarter._triton_kernels import exponentials

    types = {"out": "*fp32", "REPEATS": "constexpr", "BLOCK": "constexpr"}
    source = ASTSource(exponentials, types, {(1,): 1024, (2,): 1024})
    compiled = compile(source, target=GPUTarget("cuda", chip, 32), options={"enable_fp_fusion": True})
    # Of 1,024 entries the 128 threads of a program compute eight each, in a loop that is not unrolled.
    assert compiled.asm["ptx"].count("ex2.approx") == 8
