"""Published weights: where they are, under which licence, and how they get onto this machine."""
