"""What setup.py says of the package, without installing anything."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).parents[2]


def described_by_setup() -> dict[str, Any]:
    """The arguments that setup.py hands to ``setuptools.setup``."""
    seen: dict[str, Any] = {}
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: seen.update(arguments))
        os.chdir(ROOT)
        try:
            runpy.run_path("setup.py")
        finally:
            os.chdir(before)
    return seen
