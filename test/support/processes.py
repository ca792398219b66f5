"""Processes as the kernel sees them."""

from __future__ import annotations

from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether it is there, and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
