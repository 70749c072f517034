"""A video diffusion model with a slot for any temporal mixer: data, training, sampling.  An application, not an API."""

# Other packages of this name exist; `zoo` looks for this mark before it runs a command from here.
TEMPORAL_ZOO = True
