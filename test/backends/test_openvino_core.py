"""A signal after models came and went: Python handles it, and the process lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from dense_perception.backends import openvino as backend_module
from dense_perception.backends.openvino import openvino_core

_CHANGE_AND_INTERRUPT = """
import gc, signal, sys
from pathlib import Path
from dense_perception.backends.openvino import OpenVinoBackend
from dense_perception.core.onnx_file import OnnxFile

file = OnnxFile.read(Path(sys.argv[1]))
first = OpenVinoBackend(file)
second = OpenVinoBackend(file)  # ready before the old one goes, as when a model is changed
first.close()
second.close()
del first, second
gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


def test_a_signal_after_a_change_of_models_is_handled(tmp_path: Path) -> None:
    """With a core for each model this process ended with SIGSEGV."""
    network = Path(__file__).parents[2] / "models" / "dpt_tiny_indoor_int8.onnx"
    done = subprocess.run(
        [sys.executable, "-c", _CHANGE_AND_INTERRUPT, str(network)],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_models_that_load_at_the_same_time_share_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of two nodes in one process do: a second core would end with its model."""
    made: list[object] = []

    class Core:
        def __init__(self) -> None:
            made.append(self)
            time.sleep(0.05)  # others want theirs meanwhile

    monkeypatch.setattr(backend_module, "_import_openvino", lambda: SimpleNamespace(Core=Core))
    # In place of the real one, which other tests in this process need alive.
    monkeypatch.setattr(backend_module, "_core", cache(backend_module._core.__wrapped__))
    with ThreadPoolExecutor(4) as pool:
        cores = list(pool.map(lambda _: openvino_core(), range(4)))
    assert cores == made * 4
