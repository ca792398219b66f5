"""Nothing that this package starts reports to a runtime's maker, unless somebody wishes it to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

import dense_perception
from test.support.setup_script import ROOT

_VARIABLE = "ORT_DISABLE_TELEMETRY"
_USE = """
from dense_perception.backends.onnxruntime import import_onnxruntime
import_onnxruntime()
"""
_USE_BOTH = f"""{_USE}
from contextlib import suppress
from dense_perception.backends.openvino import _import_openvino
from dense_perception.core.errors import UnavailableError

with suppress(UnavailableError, ImportError):
    _import_openvino()
    import openvino_telemetry  # as it is to others
"""
_SENDS = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 29)


def traces(home: Path, code: str, **variables: str) -> list[str]:
    """What a process that uses the package leaves in its home, on no CI, where it is silent."""
    silent = (_VARIABLE, "CI", "TF_BUILD", "JENKINS_URL")
    kept = {name: text for name, text in os.environ.items() if name not in silent}
    cache = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", code], env={**kept, **cache, **variables}, cwd=home, check=True
    )
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def test_runtimes_send_nothing_and_give_the_machine_no_identifier(tmp_path: Path) -> None:
    """Whatever reports keeps an identifier in a file first."""
    assert traces(tmp_path, _USE_BOTH) == []


@pytest.mark.skipif(not _SENDS, reason="ONNX Runtime before 1.29 sends nothing")
def test_who_wishes_to_report_can(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"  # what this test wishes for is not sent
    assert "deviceid" in traces(tmp_path, _USE, **{_VARIABLE: "0", "https_proxy": nowhere})


@pytest.mark.parametrize(("wish", "calls"), [(None, 1), ("", 1), ("1", 1), ("0", 0)])
def test_a_runtime_that_was_imported_before_is_told(
    wish: str | None, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    runtime = SimpleNamespace(disable_telemetry_events=lambda: told.append(1))
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setenv(_VARIABLE, wish or "")
    if wish is None:
        monkeypatch.delenv(_VARIABLE)
    dense_perception._switch_telemetry_off()
    assert len(told) == calls
    assert os.environ[_VARIABLE] == (wish or "1")
