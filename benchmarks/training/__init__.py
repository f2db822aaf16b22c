"""One run: its settings, and how it is trained, stopped and recorded."""
