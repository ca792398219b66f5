"""A relative model in a real node: metric once another sensor has said how far things are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image, PointCloud2

from dense_perception.core.camera import Intrinsics
from dense_perception.core.card_specs import DepthSpec
from dense_perception.core.prediction import DepthKind
from dense_perception.imaging.points import organised_xyz
from dense_perception.ros.convert import CloudWriter, camera_info_message, image_message
from test.ros.conftest import NodeFactory
from test.support.artefacts import red_card, red_depth, write_red_artefact
from test.support.ros_probe import Probe, header, random_rgb

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(64, 48, 80.0, 80.0, 31.5, 23.5)
SCALE = 0.37


@pytest.fixture(scope="module")
def relative_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """red.onnx with a card that calls its numbers depth up to a scale."""
    path = tmp_path_factory.mktemp("models") / "relative.onnx"
    write_red_artefact(path, red_card(), depth=DepthSpec(DepthKind.RELATIVE))
    return path


def truth(rgb_hwc: np.ndarray) -> np.ndarray:
    return (SCALE * red_depth(rgb_hwc, CAMERA.mean_focal_px)).astype(np.float32)


def spoilt(depth_m: np.ndarray) -> np.ndarray:
    """Fifty pixels kept, fifteen of them wrong; NaN elsewhere."""
    rng = np.random.default_rng(0)
    sparse = np.full(depth_m.shape, np.nan, np.float32)
    places = rng.choice(depth_m.size, 50, replace=False)
    sparse.reshape(-1)[places] = depth_m.reshape(-1)[places]
    sparse.reshape(-1)[places[:15]] *= np.exp(rng.uniform(0.3, 2, 15))
    return sparse


@pytest.mark.parametrize("source", ["depth", "points"])
def test_relative_depth_waits_for_its_scale_and_is_metric_then(
    source: str, start_node: NodeFactory, probe: Probe, relative_model: Path
) -> None:
    start_node(model=relative_model, scale_source=source)
    rgb_hwc = random_rgb(seed=7)
    relative = probe.collect(Image, "/depth_node/depth/relative")
    metric = probe.collect(Image, "/depth_node/depth/image")
    points = probe.collect(PointCloud2, "/depth_node/points")
    report = probe.diagnostics()

    def send(seconds: int) -> None:
        probe.send_info(camera_info_message(None, CAMERA, header(seconds)))
        probe.send_image(image_message(rgb_hwc, header(seconds), "rgb8"))

    probe.ask(100, lambda: send(100), relative)
    assert not metric.messages
    report.wait_for(lambda array: f"no scale yet: no {source}" in array.status[0].message)
    sparse_m = spoilt(truth(rgb_hwc))
    if source == "depth":
        message = image_message(sparse_m, header(101), "32FC1")
        publisher = probe.publisher(Image, "/scale/depth", reliable=False)
    else:
        message = CloudWriter().cloud(sparse_m, CAMERA, header(101))
        assert np.isfinite(organised_xyz(sparse_m, CAMERA)).any()
        publisher = probe.publisher(PointCloud2, "/scale/points", reliable=False)

    def send_both() -> None:
        publisher.publish(message)
        send(101)

    depth, cloud = probe.ask(101, send_both, metric, points)
    depth_m = np.frombuffer(depth.data, np.float32).reshape(48, 64)
    np.testing.assert_allclose(np.median(depth_m / truth(rgb_hwc)), 1, atol=0.03)
    assert (cloud.width, cloud.height) == (64, 48)
    assert depth.header == cloud.header


def test_a_factor_changes_while_it_runs(
    start_node: NodeFactory, probe: Probe, relative_model: Path
) -> None:
    start_node(model=relative_model, scale_source="factor", scale_factor=SCALE)
    metric = probe.collect(Image, "/depth_node/depth/image")
    rgb_hwc = random_rgb(seed=8)
    # No camera_info: the assumed field of view decides what the model says.
    assumed = Intrinsics.from_fov(64, 48, 60.0).mean_focal_px
    for seconds, factor in ((100, SCALE), (200, 2.0)):
        assert probe.set_parameters(scale_factor=factor)[0].successful
        message = image_message(rgb_hwc, header(seconds), "rgb8")
        (depth,) = probe.ask(seconds, lambda m=message: probe.send_image(m), metric)
        depth_m = np.frombuffer(depth.data, np.float32).reshape(48, 64)
        np.testing.assert_allclose(depth_m, factor * red_depth(rgb_hwc, assumed), rtol=1e-4)
    (refused,) = probe.set_parameters(scale_factor=math.inf)
    assert not refused.successful
