"""Clips from a trained model: drawing them, showing them, and finding the nearest training clips."""
