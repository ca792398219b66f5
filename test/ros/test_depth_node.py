"""depth_node as a real process: what it publishes, and what it lives through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dense_perception.core.camera import Intrinsics
from dense_perception.ros.calibration import info_for_output
from dense_perception.ros.convert import image_message
from test.ros.conftest import NodeFactory
from test.support.artefacts import red_depth
from test.support.ros_probe import Probe, header, random_rgb

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(64, 48, 80.0, 78.0, 30.5, 24.5)


def camera_info(intrinsics: Intrinsics = CAMERA) -> CameraInfo:
    return info_for_output(None, intrinsics, header(0))


def xyz_of(cloud: PointCloud2) -> np.ndarray:
    """HxWx3 float32, read by the message's own fields."""
    offsets = {field.name: field.offset for field in cloud.fields}
    data = np.frombuffer(cloud.data, np.uint8).reshape(cloud.height, cloud.row_step)
    axes = []
    for axis in "xyz":
        columns = [
            data[:, u * cloud.point_step + offsets[axis] :][:, :4] for u in range(cloud.width)
        ]
        axes.append(np.stack(columns, axis=1).copy().view(np.float32)[..., 0])
    return np.stack(axes, axis=2)


def depth_of(image: Image) -> np.ndarray:
    dtype = {"32FC1": np.float32, "16UC1": np.uint16}[image.encoding]
    return np.frombuffer(image.data, dtype).reshape(image.height, image.width)


def test_every_output_has_the_header_and_the_right_numbers(
    start_node: NodeFactory, probe: Probe, red_model: Path
) -> None:
    node = start_node(model=red_model)
    outputs = {
        "depth": probe.collect(Image, "/depth_node/depth/image"),
        "info": probe.collect(CameraInfo, "/depth_node/depth/camera_info", reliable=False),
        "points": probe.collect(PointCloud2, "/depth_node/points"),
        "color": probe.collect(Image, "/depth_node/depth/color", reliable=False),
    }
    rgb_hwc = random_rgb()

    def send(seconds: int) -> None:
        probe.send_info(camera_info())
        probe.send_image(image_message(rgb_hwc, header(seconds), "rgb8"))

    probe.ask(7, lambda: send(7), *outputs.values())
    answers = dict(zip(outputs, probe.ask(8, lambda: send(8), *outputs.values()), strict=True))
    for name, answer in answers.items():
        assert answer.header == header(8), name
        assert (answer.width, answer.height) == (64, 48), name

    expected_m = red_depth(rgb_hwc, CAMERA.mean_focal_px)
    depth_m = depth_of(answers["depth"])
    np.testing.assert_allclose(depth_m, expected_m, rtol=1e-5)
    info = answers["info"]
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), CAMERA.matrix())
    np.testing.assert_allclose(np.reshape(info.p, (3, 4))[:, :3], CAMERA.matrix())
    v, u = np.mgrid[:48, :64]
    expected_xyz = np.stack(
        [
            (u - CAMERA.cx) / CAMERA.fx * expected_m,
            (v - CAMERA.cy) / CAMERA.fy * expected_m,
            expected_m,
        ],
        axis=2,
    )
    np.testing.assert_allclose(xyz_of(answers["points"]), expected_xyz, rtol=1e-4, atol=1e-5)
    assert answers["color"].encoding == "rgb8"
    assert len(answers["color"].data) == 64 * 48 * 3
    assert "torch" not in loaded_modules(node.pid)
    assert node.stop() == 0


def loaded_modules(pid: int) -> str:
    """Names of the shared libraries a process has mapped: an imported torch maps libtorch."""
    return Path(f"/proc/{pid}/maps").read_text()
