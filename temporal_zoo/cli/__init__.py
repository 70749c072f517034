"""The `zoo` command: `main` loads the commands; each is one file here, in `diffusion.cli` or in `bench.cli`."""
