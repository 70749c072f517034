"""The README's first command: the whole path on real recorded clips, in a few minutes on two cores.

    python -P -m diffusion.demo [FOLDER]

Trains the shipped checkpoint a little further and draws clips from it; trains `bimamba` and `identity` from scratch on
the same clips and noise and plots both held-out losses; measures how time and stored bytes grow with frames.  Every
step is a `zoo` command, and the demo prints it before it runs it.
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
QUIET = "--set sample_every=1000000"  # pictures are drawn at the end alone

console = Console(highlight=False, soft_wrap=True)


def main(folder: Path) -> None:
    """Runs the demo and leaves everything it made in `folder`."""
    console.print(
        f"Three parts, about five minutes on two idle cores; pictures and records go to {folder}.\n"
        f"  1  train the shipped model {CONTINUE_STEPS} steps further on recorded maze walks, and draw eight clips\n"
        f"  2  train {' and '.join(MIXERS)} from scratch beside each other, {SCRATCH_STEPS} steps each\n"
        "  3  measure time and stored bytes of attn and bimamba at 16, 64 and 256 frames"
    )
    console.rule("1  The shipped checkpoint, trained a little further")
    zoo(
        f"train --preset demo --start builtin:doom --steps {CONTINUE_STEPS} --out {folder}/continued {QUIET} "
        "--set optimizer.decay=1 --set optimizer.lr=0.0005 --set test_every=20"
    )
    zoo(f"sample {folder}/continued --count 8 --neighbours")

    console.rule("2  Two mixers from scratch: same clips, same noise")
    for mixer in MIXERS:
        zoo(
            f"train --preset demo --mixer {mixer} --steps {SCRATCH_STEPS} --out {folder}/scratch-{mixer} {QUIET} "
            "--set optimizer.decay=0 --set optimizer.warmup=20 --set test_every=10"
        )
    compare(folder)

    console.rule("3  What each costs as clips get longer")
    zoo(f"bench --layers attn,bimamba --lengths 16,64,256 --repetitions 3 --out {folder}/bench")

    console.rule("Look at")
    for name, what in PICTURES.items():
        console.print(f"  {folder / name}  {what}")


PICTURES = {
    "continued/clips/000.mp4": "a clip of the continued checkpoint (seven more beside it)",
    "continued/clips/sheet.png": "all eight, frame by frame",
    "continued/clips/neighbours.png": "each above the training clip that is nearest to it",
    "mixers.png": "real clips, the continued checkpoint, and both mixers from scratch",
    "held_out.png": "held-out loss of both mixers from scratch",
    "bench/growth.png": "time and stored bytes against frames",
}


def zoo(arguments: str) -> None:
    """Runs a `zoo` command in its own process; stops the demo when it fails."""
    console.print(f"[bold]$ zoo {arguments}")
    code = subprocess.run([sys.executable, "-P", "-m", "temporal_zoo.cli.main", *shlex.split(arguments)]).returncode
    if code:
        raise SystemExit(code)


def compare(folder: Path) -> None:
    """Draws the held-out losses of the runs from scratch, and a sheet of real and generated clips, labelled."""
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
