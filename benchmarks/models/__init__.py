"""The trunks, and how they are pre-trained."""
