"""What trains many runs, and writes what they say."""
