"""A video diffusion model with a slot for any temporal mixer: data, training, sampling.  An application, not an API."""
