"""Tables, figures and the report of runs."""
