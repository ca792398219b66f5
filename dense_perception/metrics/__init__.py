"""Predictions against truth: arrays in, figures out."""
