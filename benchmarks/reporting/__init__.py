"""Tables and figures of runs, and the report."""
