"""Experiments: train many runs, and write their results."""
