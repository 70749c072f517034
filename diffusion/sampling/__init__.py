"""Samples clips from a trained model, writes them as videos, and finds the nearest training clips."""
