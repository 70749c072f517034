"""Training: the step, the trainer, run folders, checkpoints, and what a resumed run compares."""
