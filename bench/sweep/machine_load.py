"""Load of the machine and state of the GPU before a case is measured."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import psutil

_QUERY = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw",
          "utilization.gpu", "memory.used")  # fmt: skip
_SAMPLE_S = 0.1
# Above this load, other programs may have slowed a case down.
BUSY_PERCENT = 15.0


def before_case(device: str) -> dict[str, Any]:
    """Load average of the last minute, processor load in percent, processor clock, and the state of a GPU.

    The sweep calls it while it runs no case, so that the load is that of other programs.  It takes 0.1 s.
    """
    clock = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "busy_percent_before": psutil.cpu_percent(_SAMPLE_S),
        "processor_mhz": round(clock.current) if clock and clock.current else None,
    } | ({"device_before": device_state(device)} if device.startswith("cuda") else {})


def device_state(device: str) -> dict[str, str] | None:
    """Driver, clocks, temperature, power and load of a GPU, from nvidia-smi; None if nvidia-smi fails.

    The index follows the order of nvidia-smi, which is torch's order unless CUDA_VISIBLE_DEVICES changes it.
    """
    index = device.partition(":")[2] or "0"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    index = visible[int(index)] if visible != [""] and int(index) < len(visible) else index
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(_QUERY, map(str.strip, process.stdout.strip().split(",")), strict=False))
