"""The commands of this package, one file each: train, sample, data, evaluate, weights, probe, ablate."""
