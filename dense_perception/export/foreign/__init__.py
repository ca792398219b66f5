"""Graphs of others become artefacts of this package: read, described, wrapped, checked."""
