"""What the losses cost."""
