"""Grids: trials of one seed are paired, and trials with one training share it."""

import pickle

import torch

import diffusion.training.step
from diffusion.ablations.ablation import Ablation, Cell, Scale, crossed
from diffusion.ablations.grid import build_grid
from diffusion.ablations.run_job import run_job
from diffusion.training.trainer import Trainer


def test_cells_are_all_combinations_of_values():
    assert crossed({"a": {"x": "p=1 q=2"}, "b": {"y": ""}}) == (Cell({"a": "x", "b": "y"}, ("p=1", "q=2")),)


def test_cells_of_a_seed_have_the_same_clips_and_noise(grid, mixers, monkeypatch):
    batches = {}

    def loss(network, process, *drawn):
        batches.setdefault(key, []).append(drawn)
        return torch.ones(len(drawn[0]), requires_grad=True) * next(network.parameters()).sum()

    trials = grid(seeds=2).trials  # counted with the original loss
    monkeypatch.setattr(diffusion.training.step, "loss", loss)
    for trial in trials:
        key = trial.cell["mixer"], trial.seed
        trainer = Trainer(trial.recipe.train, torch.device("cpu"))
        trainer.advance()
        trainer.advance()
        trainer.test_loss()
    (first, *others), (again, *_) = ([batches[mixer, seed] for mixer in (*mixers, "identity")] for seed in (0, 1))
    for other in others:
        assert len(other) == len(first) == 4
        for ours, theirs in zip(first, other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
    # Another seed has other training clips and the same test clips.
    assert not torch.equal(first[0][0], again[0][0])
    assert all(torch.equal(a, b) for a, b in zip(first[2][:3], again[2][:3], strict=True))


def test_cells_that_differ_only_in_sampling_share_a_training(base, tmp_path):
    cells = crossed({"sampler": {name: f"drawing.sampler={name}" for name in ("ddim", "ancestral")}})
    ablation = Ablation("micro", "?", (), (), "toy", Scale(base=base, cells=cells, held_out="v"))
    grid = build_grid(ablation, tmp_path, seeds=2, changes=(), weights=None, device="cpu")
    jobs = grid.jobs()
    assert [len(job.trials) for job in jobs] == [2, 2]
    assert all(run_job(pickle.loads(pickle.dumps(job))) is None for job in jobs)
    losses = [result.measures["held_out"] for result in grid.results()]
    assert losses[0] == losses[1] != losses[2] == losses[3]
    assert grid.jobs() == []
