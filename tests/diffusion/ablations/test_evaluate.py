"""The evaluation of a trained cell."""

import pytest
import torch

from diffusion.ablations.evaluate import held_out_v
from diffusion.training.trainer import Trainer


def test_the_error_of_v_is_the_loss_of_a_network_that_predicts_v(base):
    trainer = Trainer(base.train, torch.device("cpu"))
    # Small weights give small estimates, which clamping does not change.
    with torch.no_grad():
        for parameter in trainer.average.module.parameters():
            parameter.mul_(0.1)
    assert held_out_v(trainer) == pytest.approx(trainer.test_loss(), rel=0.2)
