"""A runtime that differs from the reference, in a running node: refused, replaced and reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image

from dense_perception.core.camera import Intrinsics
from dense_perception.ros.convert import camera_info_message, image_message
from test.ros.conftest import NodeFactory
from test.support.artefacts import write_red_artefact
from test.support.ros_probe import Probe, header, random_rgb, values_of

pytestmark = pytest.mark.ros


def test_a_refused_engine_is_replaced_and_diagnostics_say_by_how_much_it_differed(
    start_node: NodeFactory, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "strict.onnx"
    # No two runtimes round alike in the last bit everywhere.
    write_red_artefact(model, parity={"max_of_range": 0.0, "mean_of_range": 0.0})
    start_node(model=model, backend="openvino")
    depth = probe.collect(Image, "/depth_node/depth/image")
    reports = probe.diagnostics()

    def send() -> None:
        probe.send_info(camera_info_message(None, Intrinsics.from_fov(64, 48, 60), header(100)))
        probe.send_image(image_message(random_rgb(), header(100), "rgb8"))

    probe.ask(100, send, depth)
    report = reports.wait_for(lambda each: "is refused" in each.status[0].message)
    (status,) = report.status
    assert status.level == DiagnosticStatus.WARN
    measured = re.search(r"differs from ONNX Runtime by (\S+) of the range", status.message)
    assert measured is not None, status.message
    assert 0 < float(measured[1]) < 1e-3
    assert "openvino" in status.message
    assert values_of(report)["backend"].startswith("onnxruntime")
