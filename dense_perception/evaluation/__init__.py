"""Metrics, bags and benchmarks: the same perceiver, measured."""
