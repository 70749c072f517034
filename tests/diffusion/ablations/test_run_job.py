"""Jobs: an error is an outcome that the folder keeps until the job succeeds."""

from diffusion.ablations.run_job import run_job
from diffusion.training.trainer import Trainer


def test_an_error_in_a_job_is_an_outcome(grid, monkeypatch):
    job = grid().jobs()[0]
    monkeypatch.setattr(Trainer, "advance", lambda trainer: 1 / 0)
    assert run_job(job) == "ZeroDivisionError: division by zero"
    assert grid().failures() == {job.name: "ZeroDivisionError: division by zero"}
    monkeypatch.undo()
    assert run_job(job) is None
    assert grid().failures() == {}
