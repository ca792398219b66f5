"""The nouns and their rules: NumPy and PyYAML only."""
