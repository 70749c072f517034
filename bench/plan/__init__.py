"""Memory of a training step, counted without the device it is planned for."""
