"""A run's folder: what was asked, what happened, the newest checkpoint, and pictures.

config.json      the resolved configuration; with the code's version it reproduces the run
log.jsonl        one record per logged step (`temporal_zoo.record`); where a stretch was repeated, the last one counts
checkpoint.pt    written whole or not at all
weights.pt       the averaged weights alone, at the end: what one gives to others
samples/         a contact sheet and a gif now and then
loss.png         training and held-out loss so far
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from diffusion import checkpoint
from diffusion.config import TrainConfig
from diffusion.data import DataError
from diffusion.data.storage import written_whole
from diffusion.slots import assign
from diffusion.train import Step, Trainer
from temporal_zoo.config import ConfigError
from temporal_zoo.environment import environment
from temporal_zoo.ops import tracing
from temporal_zoo.record import Session

log = logging.getLogger("temporal_zoo.run")

# What may differ when a run is continued: how long it goes on, how often it reports, where decoded videos are kept, and
# what was read from the data.
FREE = frozenset({
    "steps", "save_every", "sample_every", "test_every", "data.cache", "model.channels", "model.size",
})  # fmt: skip
PREVIEW_CLIPS = 4


class Run:
    """A training run in a folder: new, or continued from its checkpoint.

    Args:
        config: what to train; an existing run must have been started with the same, but for `FREE`.
        folder: made if need be.
        device: where to train.
    Raises:
        ConfigError, UnknownMixer: a mixer, option or slot that does not exist, or the folder holds a run with another
            configuration; the message lists what differs.
        CheckpointError: its checkpoint cannot be read.
        OSError: the folder cannot be written.
    """

    def __init__(self, config: TrainConfig, folder: Path, device: torch.device) -> None:
        # A misspelt mixer is told before a folder is made and videos are decoded.
        assign(config.model.mixer, len(config.model.multipliers), config.model.slots)
        self.folder = folder
        state = None
        with _new_if_good(folder):
            if (path := folder / checkpoint.NAME).exists():
                state = checkpoint.load(path)
                # Through a `TrainConfig`, which knows the defaults of fields that are younger than the checkpoint.
                theirs = TrainConfig.from_dict(state["config"]).to_dict()
                checkpoint.require_same(config.to_dict(), theirs, folder, ignore=FREE)
            self.trainer = Trainer(config, device, state)
        self.continued = state is not None
        self.config = self.trainer.config
        with written_whole(folder / "config.json") as file:
            file.write(json.dumps(self.config.to_dict(), indent=1).encode() + b"\n")
        self._session = Session(folder / "log.jsonl", environment())

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.trainer.finished

    def steps(self) -> Iterator[tuple[Step, float | None]]:
        """Trains to the end; yields each step, with the held-out loss where it was measured.

        Ctrl-C ends it after the step under way, with a checkpoint; a second one ends it at once.

        Raises:
            ConfigError: another process trains in this folder.
            TrainingFailed: the loss or the gradient is not finite.
        """
        with _alone(self.folder), _interruptible() as interrupted:
            last = False
            while not self.finished and not last:
                with tracing() as ran:
                    step = self.trainer.advance()
                bodies = {op: sorted(names) for op, names in ran.items()}
                test_loss = self.trainer.test_loss() if self._due(self.config.test_every) else None
                self._session.write("step", vars(step) | {"test_loss": test_loss, "bodies": bodies})
                last = interrupted.is_set()
                if last or self._due(self.config.save_every):
                    checkpoint.save(self.folder / checkpoint.NAME, self.trainer.state())
                if self.finished:
                    checkpoint.save(self.folder / "weights.pt", self.trainer.weights())
                if self._due(self.config.sample_every):
                    self._draw(step.step)
                yield step, test_loss

    def _due(self, every: int) -> bool:
        return self.finished or self.trainer.step % every == 0

    def _draw(self, step: int) -> None:
        """A sample sheet, a gif and the loss curves; training goes on without them where their packages are missing."""
        from diffusion.curves import save_curves
        from diffusion.data.readers import need
        from diffusion.generate import sample_clips
        from diffusion.video import save_gif, save_sheet

        try:
            for module in ("PIL.Image", "matplotlib"):
                need(module, "drawing samples and loss curves")
        except DataError as error:
            log.warning("no pictures: %s", error)
            return
        clips = sample_clips(self.trainer.average.model, self.config, PREVIEW_CLIPS, fps=self.trainer.clips.fps)
        save_sheet(self.folder / "samples" / f"{step:07d}.png", clips)
        save_gif(self.folder / "samples" / f"{step:07d}.gif", clips)
        save_curves(self.folder / "loss.png", {self.config.model.mixer: self.folder})


@contextmanager
def _new_if_good(folder: Path) -> Iterator[None]:
    """Makes a folder, now rather than after an hour, and takes it away again where the block fails."""
    found = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not found:
            folder.rmdir()
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another process trains in {folder}; wait for it, or give --out another folder") from None
    else:
        yield
    finally:
        os.close(descriptor)


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
