"""What temporal_zoo, diffusion and bench share: files, records, packages, terminal output.  Not a public API."""
