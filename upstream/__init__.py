"""Writes pml_symm into a checkout of pytorch-metric-learning, following PML's style."""
