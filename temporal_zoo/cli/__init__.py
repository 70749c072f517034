"""The `zoo` command: `main` finds the commands, and each is one file here, in `diffusion.cli` or `bench.cli`."""
