"""Fixtures for the tests of ops: lengths that cannot be read, and Triton's interpreter and compiler."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from temporal_zoo.ops import _lengths


@pytest.fixture
def unread_lengths(monkeypatch):
    """The values of `lengths` cannot be read before the call, as on a GPU; so rows may have no real frame."""
    monkeypatch.setattr(_lengths, "_readable", lambda lengths: False)


@pytest.fixture
def opcheck():
    """torch's own check of an operator, where warnings are errors."""
    with warnings.catch_warnings():
        # Since torch 2.14 it looks at `.grad` of any tensor, and hides the warning from the screen only.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)
        yield torch.library.opcheck


@pytest.fixture
def interpret():
    """Runs pytest with each list of arguments, in one process whose Triton interprets its kernels on the CPU."""

    def run(*runs):
        code = "import json, sys, pytest; sys.exit(any(pytest.main(run) for run in json.loads(sys.argv[1])))"
        arguments = [["-q", "-x", "-p", "no:cacheprovider", *map(str, run)] for run in runs]
        ran = subprocess.run(
            [sys.executable, "-c", code, json.dumps(arguments)],
            capture_output=True,
            text=True,
            env=os.environ | {"TRITON_INTERPRET": "1", "ZOO_BACKEND": ""},
            cwd=Path(__file__).parents[3],
            timeout=600,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

    return run


class Resources(NamedTuple):
    """Resources of a compiled kernel: registers and spilled bytes of a thread, shared bytes of a program."""

    registers: int
    spilled: int
    shared: int


@pytest.fixture
def compiled_for(monkeypatch, tmp_path, capfd):
    """Compiles a kernel for a chip (80 is sm_80) as its launcher would, from its arguments and options by name; the
    machine needs no GPU."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DUMP_PTXAS_LOG", "1")

    def compile_(chip, kernel, arguments):
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile
        from triton.language import constexpr

        signature, constants, hints = {}, {}, {}
        for place, parameter in enumerate(kernel.params):
            value = arguments[parameter.name]
            value = constexpr(value) if parameter.is_constexpr else value
            signature[parameter.name] = _describe(value, (place,), constants, hints)
        options = {name: value for name, value in arguments.items() if name not in kernel.arg_names}
        source = ASTSource(kernel, signature, constants, hints)
        compiled = compile(source, target=GPUTarget("cuda", chip, 32), options={"enable_fp_fusion": True} | options)
        # Triton 3.4 does not print the log of ptxas, so ptxas runs again.
        log = capfd.readouterr().out or _ptxas_log(tmp_path, compiled.asm["ptx"])
        spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
        registers = re.search(r"Used (\d+) registers", log)
        return Resources(int(registers[1]), sum(map(int, spilled.groups())), compiled.metadata.shared)

    return compile_


def _ptxas_log(folder, ptx):
    """The log of ptxas about the registers of a kernel in PTX."""
    from triton import knobs

    source, chip = folder / "kernel.ptx", re.search(r"^\.target (\w+)", ptx, re.MULTILINE)[1]
    source.write_text(ptx)
    command = [knobs.nvidia.ptxas.path, "-v", f"--gpu-name={chip}", source, "-o", folder / "kernel.cubin"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def _describe(value, path, constants, hints):
    """The type and the hints that Triton's launcher derives from an argument."""
    if isinstance(value, tuple):
        parts = [_describe(part, (*path, place), constants, hints) for place, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, torch.Tensor):
        hints[path] = [["tt.divisibility", 16]]
        names = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}
        return names[value.dtype]
    if isinstance(value, int) and not isinstance(value, bool):
        if value % 16 == 0:
            hints[path] = [["tt.divisibility", 16]]
        return "i32"
    constants[path] = getattr(value, "value", value)
    return "constexpr"
