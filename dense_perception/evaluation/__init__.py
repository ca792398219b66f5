"""Models against truth: the same perceiver, on recordings and data sets."""
