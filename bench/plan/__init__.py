"""Plans: the memory of a training step, counted without the device of the plan."""
