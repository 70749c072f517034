"""A video diffusion model with slots for temporal mixers: data, training, sampling.  An application, not an API."""

# Other packages have this name too; `zoo` checks this attribute before it runs a command from here.
TEMPORAL_ZOO = True
