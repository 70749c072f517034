"""Runs cases: their definition, subprocesses, measurements and results."""
