"""A run's folder: what was asked, what happened, the newest checkpoint, and pictures.

config.json      the resolved configuration; with the code's version it reproduces the run
log.jsonl        one record per logged step (`temporal_zoo.record`); where a stretch was repeated, the last one counts
checkpoint.pt    written whole or not at all
samples/         a contact sheet and a gif now and then
loss.png         training and held-out loss so far
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from diffusion import checkpoint
from diffusion.config import TrainConfig
from diffusion.train import Step, Trainer
from temporal_zoo.environment import environment
from temporal_zoo.ops import tracing
from temporal_zoo.record import Session, read

log = logging.getLogger("temporal_zoo.run")

# What may differ when a run is continued: how long it goes on, and how often it reports.
FREE = frozenset({"steps", "save_every", "sample_every", "test_every"})
PREVIEW_CLIPS, PREVIEW_STEPS = 4, 40


class Run:
    """A training run in a folder: new, or continued from its checkpoint.

    Args:
        config: what to train; an existing run must have been started with the same, but for `FREE`.
        folder: made if need be.
        device: where to train.
    Raises:
        ConfigError: the folder holds a run with another configuration; the message lists what differs.
        CheckpointError: its checkpoint cannot be read.
        OSError: the folder cannot be written.
    """

    def __init__(self, config: TrainConfig, folder: Path, device: torch.device) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.trainer = Trainer(config, device)
        self.config = self.trainer.config
        path = folder / checkpoint.NAME
        self.continued = path.exists()
        if self.continued:
            state = checkpoint.load(path)
            checkpoint.require_same(self.config.to_dict(), state["config"], folder, ignore=FREE)
            self.trainer.restore(state)
        (folder / "config.json").write_text(json.dumps(self.config.to_dict(), indent=1) + "\n")
        self._session = Session(folder / "log.jsonl", environment())

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.trainer.step >= self.config.steps

    def steps(self) -> Iterator[tuple[Step, float | None]]:
        """Trains to the end; yields each step, with the held-out loss where it was measured.

        Ctrl-C ends it after the step under way, with a checkpoint; a second one ends it at once.
        """
        with _interruptible() as interrupted, tracing() as ran:
            for step in self.trainer.steps():
                last = interrupted.is_set() or self.finished
                test_loss = self.trainer.test_loss() if last or step.step % self.config.test_every == 0 else None
                self._record(step, test_loss, ran)
                if last or step.step % self.config.save_every == 0:
                    checkpoint.save(self.folder / checkpoint.NAME, self.trainer.state())
                if self.finished or step.step % self.config.sample_every == 0:
                    self._draw(step.step)
                yield step, test_loss
                if last:
                    break

    def _record(self, step: Step, test_loss: float | None, ran: dict[str, set[str]]) -> None:
        bodies = {op: sorted(names) for op, names in ran.items()}
        self._session.write("step", vars(step) | {"test_loss": test_loss, "bodies": bodies})

    def _draw(self, step: int) -> None:
        """A sample sheet, a gif and the loss curves; training goes on without them where their packages are missing."""
        from diffusion.curves import save_curves
        from diffusion.generate import sample_clips
        from diffusion.video import save_gif, save_sheet

        try:
            clips = sample_clips(
                self.trainer.average.model, self.config, PREVIEW_CLIPS, seed=0, sampler="ddim",
                num_steps=min(PREVIEW_STEPS, self.config.process.steps), fps=self.trainer.clips.fps,
            )  # fmt: skip
            save_sheet(self.folder / "samples" / f"{step:07d}.png", clips)
            save_gif(self.folder / "samples" / f"{step:07d}.gif", clips)
            save_curves(self.folder / "loss.png", {self.config.model.mixer: self.folder})
        except ModuleNotFoundError as error:
            log.warning("no pictures: %s", error)


def history(folder: Path) -> list[dict]:
    """The logged steps of a run in order; where a stretch was trained again after a crash, the later records."""
    steps = {record["step"]: record for record in read(folder / "log.jsonl").of("step")}
    return [steps[number] for number in sorted(steps)]


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets instead of stopping the program; the next Ctrl-C stops it."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread receives signals
        return

    def note(*_) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
