"""Benchmarks of pml_symm on PML's own trainers, testers and record-keeper."""
