"""The diffusion process, the samplers that reverse it, and the random numbers of both."""
