"""The diffusion process, its samplers, and their random numbers."""
