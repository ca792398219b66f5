"""An ONNX file of others, imported and given to a node by its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sensor_msgs.msg import Image

from dense_perception.cli import main
from dense_perception.ros.convert import image_message
from test.ros.conftest import NodeFactory
from test.support.foreign_graphs import write_plain
from test.support.ros_probe import Probe, header, random_rgb

pytestmark = pytest.mark.ros


def test_a_node_answers_as_the_foreign_file_does(
    start_node: NodeFactory, probe: Probe, tmp_path: Path
) -> None:
    """Of a picture in a letterbox, whose padding does not come back."""
    metadata = {"author": "Ultralytics", "task": "semantic", "names": "{0: 'road', 1: 'car'}"}
    file = write_plain(tmp_path / "net.onnx", classes=2, stride=1, metadata=metadata)
    assert main(["import", str(file), "--output", str(tmp_path / "models"), "--quiet"]) == 0
    start_node(node="segmentation_node", model=tmp_path / "models" / "net.yaml")
    labels = probe.collect(Image, "/segmentation_node/segmentation/labels")
    rgb_hwc = random_rgb(32, 48)
    message = image_message(rgb_hwc, header(7), "rgb8")
    (answer,) = probe.ask(7, lambda: probe.send_image(message), labels)

    boxed = np.full((48, 64, 3), 114, np.float32)
    boxed[:, 16:48] = rgb_hwc
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"input": boxed.transpose(2, 0, 1)[None] / np.float32(255)})
    want_hw = scores[0].argmax(axis=0)[:, 16:48]
    assert (answer.width, answer.height) == (32, 48)
    got_hw = np.frombuffer(answer.data, np.uint8).reshape(48, 32)
    assert (got_hw == want_hw).mean() > 0.999
