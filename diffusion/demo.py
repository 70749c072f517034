"""The demo: training, sampling and measuring on recorded clips, in a few minutes on two cores.

    python -P -m diffusion.demo [FOLDER]

Continues training from the shipped checkpoint and samples clips; trains `bimamba` and `identity` from random weights on
the same clips and noise and plots both held-out losses; measures how time and stored bytes grow with frames.  The demo
runs `zoo` commands and prints each of them first.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console

CONTINUE_STEPS = 80
SCRATCH_STEPS = 80
MIXERS = ("bimamba", "identity")
QUIET = "--set sample_every=1000000"  # samples only at the end

console = Console(highlight=False, soft_wrap=True)


def main(folder: Path) -> None:
    """Runs the demo; writes all files to `folder`."""
    console.print(
        f"Three parts, about five minutes on two idle cores; the demo writes pictures and records to {folder}.\n"
        f"  1  train the shipped model for {CONTINUE_STEPS} more steps on recorded maze walks, and sample eight clips\n"
        f"  2  train {' and '.join(MIXERS)} from random weights, {SCRATCH_STEPS} steps each\n"
        "  3  measure time and stored bytes of attn and bimamba at 16, 64 and 256 frames"
    )
    console.rule("1  Training continues from the shipped checkpoint")
    zoo(
        f"train --preset demo --start builtin:doom --steps {CONTINUE_STEPS} --out {folder}/continued {QUIET} "
        "--set optimizer.decay=1 --set optimizer.lr=0.0005 --set test_every=20"
    )
    zoo(f"sample {folder}/continued --count 8 --neighbours")

    console.rule("2  Two mixers from random weights: same clips, same noise")
    for mixer in MIXERS:
        zoo(
            f"train --preset demo --mixer {mixer} --steps {SCRATCH_STEPS} --out {folder}/scratch-{mixer} {QUIET} "
            "--set optimizer.decay=0 --set optimizer.warmup=20 --set test_every=10"
        )
    compare(folder)

    console.rule("3  Time and stored bytes against the length of clips")
    zoo(f"bench --layers attn,bimamba --lengths 16,64,256 --repetitions 3 --out {folder}/bench")

    console.rule("Results")
    for name, what in PICTURES.items():
        console.print(f"  {folder / name}  {what}")


PICTURES = {
    "continued/clips/000.mp4": "a clip of the continued checkpoint, one of eight",
    "continued/clips/sheet.png": "the frames of all eight clips",
    "continued/clips/neighbours.png": "each clip above its nearest training clip",
    "mixers.png": "real clips, clips of the continued checkpoint, and clips of both mixers from random weights",
    "held_out.png": "held-out loss of both mixers from random weights",
    "bench/growth.png": "time and stored bytes against frames",
}


def zoo(arguments: str) -> None:
    """Runs a `zoo` command in a subprocess; the demo ends if the command fails."""
    console.print(f"[bold]$ zoo {arguments}")
    code = subprocess.run([sys.executable, "-P", "-m", "temporal_zoo.cli.main", *shlex.split(arguments)]).returncode
    if code:
        raise SystemExit(code)


def compare(folder: Path) -> None:
    """Plots the held-out losses of the runs from random weights, and draws a sheet of real and generated clips."""
    import torch

    from diffusion.data import open_clips
    from diffusion.sampling.generate import load_network, sample_clips
    from diffusion.sampling.video import save_sheet
    from diffusion.training.checkpoint import find
    from diffusion.training.curves import save_curves

    save_curves(folder / "held_out.png", {f"{mixer}, from scratch": folder / f"scratch-{mixer}" for mixer in MIXERS})
    runs = {"checkpoint, continued": folder / "continued"}
    runs |= {f"{mixer}, from scratch": folder / f"scratch-{mixer}" for mixer in MIXERS}
    rows = {}
    for name, run in runs.items():
        network, config, fps = load_network(find(run), torch.device("cpu"))
        rows[name] = sample_clips(network, config, 2, fps=fps)
    rows = {"recorded, held out": open_clips(config.data, split="test").fixed(2)} | rows
    labelled = [(name, clip) for name, clips in rows.items() for clip in clips]
    save_sheet(folder / "mixers.png", [clip for _, clip in labelled], names=[name for name, _ in labelled])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
