"""The denoiser: the U-Net, its blocks, and the slots that hold temporal mixers."""
