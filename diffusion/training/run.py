"""A run's folder: configuration, log, checkpoint and pictures.

config.json      the resolved configuration; with the code's version it reproduces the run
log.jsonl        one record per step; if a resumed run repeats steps, the later records count
checkpoint.pt    the newest checkpoint; the file is always complete
weights.pt       the averaged weights alone, written at the end, for sharing
samples/         contact sheets and gifs
loss.png         training and held-out loss so far

A process locks the folder before it reads anything there, so that one process at a time trains in it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from diffusion.config import TrainConfig
from diffusion.model import backbones
from diffusion.model.mixer_text import short
from diffusion.training import checkpoint, resume
from diffusion.training.folder_lock import FolderLock
from diffusion.training.trainer import StepRecord, Trainer
from temporal_zoo._support.environment import environment
from temporal_zoo._support.files import written_whole
from temporal_zoo._support.record import Session
from temporal_zoo._support.signals import Stop, stoppable
from temporal_zoo.config import ConfigError
from temporal_zoo.ops import tracing

log = logging.getLogger("temporal_zoo.run")

WEIGHTS = "weights.pt"
PREVIEW_CLIPS = 4
LABEL = 40  # characters of a mixer's text in the legend of the loss curves
_PART = re.compile(r"\..+-[0-9a-f]{8}\.part")  # the names that `written_whole` gives to unfinished files


class Run:
    """A training run in a folder: new, or resumed from its checkpoint.

    It holds the folder's lock until `close`, or until it is garbage-collected; `with Run(...) as run` closes it.

    Args:
        config: what to train; it must equal the configuration of an existing run, except for `resume.FREE`.
        folder: the run's folder; created if it does not exist.
        device: where to train.
        beside: names of the caller's files that may be in the folder before the run starts.
    Attributes:
        changed: a line for each change since the last start of the run.
        stopped_by: the signal that ended `steps`, or None.
    Raises:
        ConfigError, UnknownMixer: a mixer, option or slot does not exist; the folder holds a run with another
            configuration (the message lists the differences), or other files, which do not change; or another process
            trains in it.
        CheckpointError: its checkpoint cannot be used.
        OSError: the folder cannot be written.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, device: torch.device, *, beside: Collection[str] = ()
    ) -> None:
        # Refuses a misspelt mixer before it creates a folder and decodes videos.
        backbones.mixers(config.model)
        self.folder = folder
        self.stopped_by: int | None = None
        self._lock = FolderLock(folder)
        try:
            _require_run_or_empty(folder, config, beside)
            _remove_unfinished(folder, folder / "samples")
            self._open(config, device)
        except BaseException:
            self._lock.close()
            self._lock.remove_if_new()
            raise

    def _open(self, config: TrainConfig, device: torch.device) -> None:
        state, path = None, self.folder / checkpoint.NAME
        if path.exists():
            state = checkpoint.load(path, checkpoint.WHOLE)
            theirs = resume.comparable(checkpoint.config_of(state, path))
            resume.require_same(resume.comparable(config), theirs, self.folder)
        self.trainer = Trainer(config, device, state, path)
        self.resumed = state is not None
        self.config = self.trainer.config
        here, log = environment(), self.folder / "log.jsonl"
        start = resume.start_record(self.trainer.clips, device)
        self.changed: list[str] = []
        if state is not None:
            fields = resume.differences(resume.comparable(self.config), theirs)
            self.changed += [f"{name}: {before} before, {now} now" for name, (now, before) in fields.items()]
            self.changed += resume.changes(resume.last_start(log), resume.with_versions(start, here))
        with written_whole(self.folder / "config.json") as file:
            file.write(json.dumps(self.config.to_dict(), indent=1).encode() + b"\n")
        self._session = Session(log, here)
        self._session.write(resume.KIND, start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the folder's lock."""
        self._lock.close()

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.trainer.finished

    def steps(self) -> Iterator[tuple[StepRecord, float | None]]:
        """Trains to the end; yields each step, and its held-out loss if it was measured.

        Ctrl-C, SIGTERM and SIGHUP end it after the present step, with a checkpoint; a second signal ends it at once.
        If the run is finished, it writes missing files (`complete`).  At the end it releases the folder's lock.

        Raises:
            TrainingFailed: the loss or the gradient is not finite.
        """
        self.stopped_by = None
        try:
            if self.finished:
                self.complete()
            with stoppable() as stop:
                while not self.finished and not self.stopped_by:
                    yield self._step(stop)
        finally:
            self.close()

    def _step(self, stop: Stop) -> tuple[StepRecord, float | None]:
        with tracing() as ran:
            step = self.trainer.advance()
        backends = {op: sorted(names) for op, names in ran.items()}
        test_loss = self.trainer.test_loss() if self._due(self.config.test_every) else None
        self._session.write("step", vars(step) | {"test_loss": test_loss, "backends": backends})
        self.stopped_by = stop.signal
        if self.stopped_by or self._due(self.config.save_every):
            checkpoint.save(self.folder / checkpoint.NAME, self.trainer.state())
        if self.finished:
            self._save_weights()
        if self._due(self.config.sample_every):
            self._draw(step.step)
        return step, test_loss

    def complete(self) -> list[str]:
        """Writes the files that a finished run lacks because it was killed after its last checkpoint.

        Replaces the weights of an earlier, shorter training.

        Returns:
            what it wrote: "weights.pt", "pictures".
        """
        written = []
        if not self._has_weights():
            self._save_weights()
            written.append(WEIGHTS)
        if any(not path.exists() for path in self._pictures(self.trainer.step)) and self._draw(self.trainer.step):
            written.append("pictures")
        return written

    def _has_weights(self) -> bool:
        try:
            return checkpoint.load(self.folder / WEIGHTS, checkpoint.WEIGHTS)["step"] == self.trainer.step
        except (FileNotFoundError, checkpoint.CheckpointError):
            return False

    def _save_weights(self) -> None:
        checkpoint.save(self.folder / WEIGHTS, self.trainer.weights())

    def _pictures(self, step: int) -> tuple[Path, Path, Path]:
        """Paths of the contact sheet, the gif and the loss curves after a step."""
        samples = self.folder / "samples"
        return samples / f"{step:07d}.png", samples / f"{step:07d}.gif", self.folder / "loss.png"

    def _due(self, every: int) -> bool:
        return self.finished or self.trainer.step % every == 0

    def _draw(self, step: int) -> bool:
        """Draws a sample sheet, a gif and the loss curves; without their packages it warns and returns False."""
        from diffusion.sampling.generate import sample_clips
        from diffusion.sampling.video import save_gif, save_sheet
        from diffusion.training.curves import save_curves
        from temporal_zoo._support.packages import MissingPackage, need

        try:
            for module in ("PIL.Image", "matplotlib"):
                need(module, "drawing samples and loss curves")
        except MissingPackage as error:
            log.warning("no pictures: %s", error)
            return False
        clips = sample_clips(self.trainer.average.module, self.config, PREVIEW_CLIPS, fps=self.trainer.clips.fps)
        sheet, gif, curves = self._pictures(step)
        # The curves first: if the samples of a step exist, the curves reach that step.
        mixer = short(self.config.model.mixer)
        save_curves(curves, {mixer if len(mixer) < LABEL else f"{mixer[:LABEL]} ...": self.folder})
        save_sheet(sheet, clips)
        save_gif(gif, clips)
        return True


def _require_run_or_empty(folder: Path, config: TrainConfig, beside: Collection[str]) -> None:
    """Refuses a folder that is neither a run's nor empty.  Raises: ConfigError."""
    if _is_run(folder):
        return
    others = {path.name for path in folder.iterdir() if not _PART.fullmatch(path.name)} - set(beside)
    if config.data.cache is not None:  # the folder may hold the decoded videos
        others -= {path.name for path in folder.iterdir() if _holds(path, Path(config.data.cache).expanduser())}
    if others:
        raise ConfigError(
            f"{folder} is not empty and holds no training run, but {', '.join(sorted(others)[:3])}; nothing was "
            "changed. Choose another folder with --out"
        )


def _holds(path: Path, inner: Path) -> bool:
    return inner.absolute().is_relative_to(path.absolute())


def _is_run(folder: Path) -> bool:
    """Whether the folder has the configuration of a run, or no configuration but a checkpoint."""
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        return (folder / checkpoint.NAME).exists()
    except ValueError:
        return False
    return isinstance(content, dict) and {"model", "process", "data", "optimizer", "steps"} <= content.keys()


def _remove_unfinished(*folders: Path) -> None:
    """Removes unfinished files of killed processes; the lock excludes other processes that write there."""
    for folder in folders:
        for path in folder.glob(".*.part"):
            if _PART.fullmatch(path.name):
                path.unlink(missing_ok=True)
