"""The time and memory of the losses."""
