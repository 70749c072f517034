"""What else went on while a case was measured: load of the machine, and the state of the device."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import psutil

_QUERY = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw",
          "utilization.gpu", "memory.used")  # fmt: skip
# Before a case nothing of ours runs: what is busy then is somebody else's.
_LISTEN_S = 0.1
# Other programs that took this share of the processors while nothing of ours ran may have slowed a case down.
BUSY_PERCENT = 15.0


def before(device: str) -> dict[str, Any]:
    """Load of the last minute, share of the processors that is busy now, their clock, and the device's state.

    To be called while nothing of ours runs; takes a tenth of a second.
    """
    clock = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "busy_percent_before": psutil.cpu_percent(_LISTEN_S),
        "processor_mhz": round(clock.current) if clock and clock.current else None,
    } | ({"device_before": device_state(device)} if device.startswith("cuda") else {})


def device_state(device: str) -> dict[str, str] | None:
    """What nvidia-smi says of the device's driver, clocks, temperature, power and load; None where it cannot be asked.

    Which one it is follows the order of nvidia-smi, which is torch's unless CUDA_VISIBLE_DEVICES says otherwise.
    """
    index = device.partition(":")[2] or "0"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    index = visible[int(index)] if visible != [""] and int(index) < len(visible) else index
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(_QUERY, map(str.strip, done.stdout.strip().split(",")), strict=False))
