"""The denoiser: backbones, their blocks, and the slots that hold temporal mixers."""
