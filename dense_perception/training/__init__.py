"""Corpora, losses and the training loop."""
