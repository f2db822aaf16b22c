"""Writes pml_symm into a checkout of pytorch-metric-learning, in its own conventions."""
