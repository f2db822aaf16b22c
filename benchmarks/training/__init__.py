"""One run: what it depends on, and how it is trained, stopped and recorded."""
