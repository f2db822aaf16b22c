"""The methods to compare."""
