"""Training: the step, the trainer, runs in folders, and checkpoints."""
