"""depth_node as a real process: every input it takes, and every bad one it outlives."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dense_perception.core.camera import Intrinsics
from dense_perception.imaging.encodings import IMAGE_ENCODINGS
from dense_perception.ros.convert import camera_info_message, image_message
from test.ros.conftest import Live
from test.support.artefacts import red_depth
from test.support.bad_images import BAD_IMAGES, broken
from test.support.depth_messages import depth_of, expected_xyz, point_field, xyz_of
from test.support.image_messages import gray_image
from test.support.ros_probe import Collector, header, random_rgb, values_of

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(64, 48, 80.0, 78.0, 30.5, 24.5)
ASSUMED = Intrinsics.from_fov(64, 48, 60.0)
STAMPS = itertools.count(100)


def info_of(intrinsics: Intrinsics = CAMERA) -> CameraInfo:
    return camera_info_message(None, intrinsics, header(0))


@pytest.fixture(scope="module")
def outputs(live: Live) -> dict[str, Collector]:
    """One subscriber per output; some best effort, as the node's reliable output serves both."""
    probe = live.probe
    return {
        "depth": probe.collect(Image, "/depth_node/depth/image"),
        "info": probe.collect(CameraInfo, "/depth_node/depth/camera_info", reliable=False),
        "points": probe.collect(PointCloud2, "/depth_node/points"),
        "color": probe.collect(Image, "/depth_node/depth/color", reliable=False),
        "diagnostics": probe.diagnostics(),
    }


@pytest.fixture
def calibrated(live: Live, outputs: dict[str, Collector]) -> None:
    """The node uses CAMERA, whatever tests before did."""

    def send(seconds: int) -> None:
        live.probe.send_info(info_of())
        live.probe.send_image(image_message(random_rgb(), header(seconds), "rgb8"))

    while True:
        seconds = next(STAMPS)
        (info,) = live.probe.ask(seconds, lambda s=seconds: send(s), outputs["info"])
        if info.k[0] == CAMERA.fx:
            return


def ask_depth(live: Live, outputs: dict[str, Collector], message: Image) -> Image:
    (answer,) = live.probe.ask(
        message.header.stamp.sec, lambda: live.probe.send_image(message), outputs["depth"]
    )
    assert answer.header == message.header
    return answer


def test_every_output_has_the_header_and_the_right_numbers(
    live: Live, outputs: dict[str, Collector], calibrated: None
) -> None:
    rgb_hwc = random_rgb(seed=1)
    message = image_message(rgb_hwc, header(next(STAMPS), "head_camera_optical"), "rgb8")
    names = ("depth", "info", "points", "color")
    answers = live.probe.ask(
        message.header.stamp.sec,
        lambda: live.probe.send_image(message),
        *(outputs[name] for name in names),
    )
    for answer in answers:
        assert answer.header == message.header
        assert (answer.width, answer.height) == (64, 48)
    depth, info, points, color = answers

    expected_m = red_depth(rgb_hwc, CAMERA.mean_focal_px)
    assert depth.encoding == "32FC1"
    np.testing.assert_allclose(depth_of(depth), expected_m, rtol=1e-5)
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), CAMERA.matrix())
    np.testing.assert_allclose(np.reshape(info.p, (3, 4))[:, :3], CAMERA.matrix())
    np.testing.assert_allclose(
        xyz_of(points), expected_xyz(expected_m, CAMERA), rtol=1e-4, atol=1e-5
    )
    packed = point_field(points, "rgb")
    np.testing.assert_array_equal(packed >> 16, rgb_hwc[..., 0])
    np.testing.assert_array_equal(packed >> 8 & 255, rgb_hwc[..., 1])
    np.testing.assert_array_equal(packed & 255, rgb_hwc[..., 2])
    assert color.encoding == "rgb8"
    assert len(color.data) == 64 * 48 * 3


@pytest.mark.parametrize("encoding", IMAGE_ENCODINGS)
def test_every_encoding_is_answered(
    live: Live, outputs: dict[str, Collector], calibrated: None, encoding: str
) -> None:
    answer = ask_depth(live, outputs, gray_image(encoding, 100, next(STAMPS)))
    one_level_m = 9 / 255 * CAMERA.mean_focal_px / 64
    expected_m = CAMERA.mean_focal_px / 64 + 100 * one_level_m
    # Luma in 219 levels and demosaicing round by up to two levels of 255.
    np.testing.assert_allclose(depth_of(answer), expected_m, atol=2.1 * one_level_m)


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_named_and_the_next_is_answered(
    live: Live, outputs: dict[str, Collector], calibrated: None, name: str
) -> None:
    change, complaint = BAD_IMAGES[name]
    bad = broken(change, next(STAMPS))
    before = int(values_of(outputs["diagnostics"].wait()[-1])["frames failed"])
    live.probe.send_image(bad)
    report = outputs["diagnostics"].wait_for(
        lambda array: int(values_of(array)["frames failed"]) > before
    )
    assert complaint in values_of(report)["last error"]
    assert outputs["depth"].latest_with_stamp(bad.header.stamp.sec) is None
    ask_depth(live, outputs, image_message(random_rgb(), header(next(STAMPS)), "rgb8"))


def bad_infos() -> dict[str, tuple[CameraInfo, str]]:
    zero, nan, no_size = info_of(), info_of(), info_of()
    zero.k = [0.0] * 9
    nan.k = [float("nan"), *info_of().k[1:]]
    no_size.width = no_size.height = 0
    return {
        "zero K": (zero, "K of camera_info is not usable: fx is 0.0"),
        "NaN K": (nan, "K of camera_info is not usable: fx is nan"),
        "no size": (no_size, "camera_info is for an image of 0x0 pixels"),
        "other shape": (info_of(CAMERA.resized(64, 64)), "which has another shape"),
    }


@pytest.mark.parametrize("name", ["zero K", "NaN K", "no size", "other shape"])
def test_bad_camera_info_is_named_and_a_field_of_view_assumed(
    live: Live, outputs: dict[str, Collector], calibrated: None, name: str
) -> None:
    info, complaint = bad_infos()[name]
    rgb_hwc = random_rgb(seed=3)
    while True:  # until the camera_info has overtaken the images
        live.probe.send_info(info)
        message = image_message(rgb_hwc, header(next(STAMPS)), "rgb8")
        answer = ask_depth(live, outputs, message)
        if not np.allclose(depth_of(answer), red_depth(rgb_hwc, CAMERA.mean_focal_px)):
            break
    expected_m = red_depth(rgb_hwc, ASSUMED.mean_focal_px)
    np.testing.assert_allclose(depth_of(answer), expected_m, rtol=1e-5)
    report = outputs["diagnostics"].wait_for(lambda array: complaint in array.status[0].message)
    assert "assumed 60 degrees" in values_of(report)["intrinsics"]


def test_camera_info_of_the_unscaled_image_is_scaled(
    live: Live, outputs: dict[str, Collector], calibrated: None
) -> None:
    wide = Intrinsics(640, 480, 700.0, 710.0, 330.0, 230.0)
    while True:
        live.probe.send_info(info_of(wide))
        message = image_message(random_rgb(), header(next(STAMPS)), "rgb8")
        (info,) = live.probe.ask(
            message.header.stamp.sec, lambda m=message: live.probe.send_image(m), outputs["info"]
        )
        if info.k[0] != CAMERA.fx:
            break
    assert (info.width, info.height) == (64, 48)
    assert info.k[0] == pytest.approx(70.0)
    assert info.k[2] == pytest.approx((330.0 + 0.5) / 10 - 0.5)


def test_48_megapixels_are_answered_at_the_largest_output_size(
    live: Live, outputs: dict[str, Collector]
) -> None:
    pixels = np.full((6000, 8000), 100, np.uint8)
    message = image_message(pixels, header(next(STAMPS)), "mono8")
    live.probe.send_image(message)
    answer = outputs["depth"].wait_for(lambda each: each.header == message.header)
    assert (answer.width, answer.height) == (1280, 960)
    ask_depth(live, outputs, image_message(random_rgb(), header(next(STAMPS)), "rgb8"))


def test_live_parameters_change_the_answers(
    live: Live, outputs: dict[str, Collector], calibrated: None
) -> None:
    rgb_hwc = random_rgb(seed=4)
    expected_m = red_depth(rgb_hwc, CAMERA.mean_focal_px)
    limit_m = float(np.median(expected_m))
    defaults = {"depth_encoding": "32FC1", "max_depth_m": 1e6, "points_rgb": True}
    try:
        settings = {"depth_encoding": "16UC1", "max_depth_m": limit_m, "points_rgb": False}
        assert all(result.successful for result in live.probe.set_parameters(**settings))
        message = image_message(rgb_hwc, header(next(STAMPS)), "rgb8")
        depth, points = live.probe.ask(
            message.header.stamp.sec,
            lambda: live.probe.send_image(message),
            outputs["depth"],
            outputs["points"],
        )
        near = expected_m <= limit_m
        assert depth.encoding == "16UC1"
        np.testing.assert_array_equal(depth_of(depth)[~near], 0)
        np.testing.assert_allclose(depth_of(depth)[near], expected_m[near] * 1000, atol=0.51)
        assert [field.name for field in points.fields] == ["x", "y", "z"]
        assert points.point_step == 12
        np.testing.assert_array_equal(np.isfinite(xyz_of(points)).all(axis=2), near)
    finally:
        assert all(result.successful for result in live.probe.set_parameters(**defaults))


REJECTED = [
    ({"max_depth_m": -1.0}, "-1"),
    ({"threads": 1000}, "1000"),
    ({"depth_encoding": "64FC1"}, "expected one of 32FC1, 16UC1"),
    ({"points_rgb": "yes"}, "type"),
    ({"min_depth_m": 5.0, "max_depth_m": 4.0}, ""),
    ({"autostart": False}, "read-only"),
    ({"model": "another"}, "another"),
    ({"scale_source": "depth"}, "deactivate and clean it up"),
]


@pytest.mark.parametrize(("values", "reason"), REJECTED)
def test_wrong_parameters_are_rejected_with_a_reason(
    live: Live, values: dict[str, object], reason: str
) -> None:
    results = live.probe.set_parameters(**values)
    assert not results[-1].successful
    assert reason in results[-1].reason
    if len(values) > 1:  # each was set on its own, so the first took effect
        assert "min_depth_m is 5.0 and max_depth_m is 4.0" in results[-1].reason
        live.probe.set_parameters(min_depth_m=0.0)


def test_parameters_are_described(live: Live) -> None:
    hfov, encoding, autostart = live.probe.describe(
        "default_hfov_deg", "depth_encoding", "autostart"
    )
    (limits,) = hfov.floating_point_range
    assert (limits.from_value, limits.to_value) == (1.0, 170.0)
    assert "field of view" in hfov.description
    assert encoding.additional_constraints == "one of 32FC1, 16UC1"
    assert autostart.read_only
    assert not encoding.read_only


def test_diagnostics_tell_the_stages(
    live: Live, outputs: dict[str, Collector], calibrated: None
) -> None:
    values = values_of(outputs["diagnostics"].wait()[-1])
    for stage in ("wait", "convert", "prepare", "infer", "restore", "publish"):
        median = float(values[f"latency {stage} median (ms)"])
        assert 0 <= median <= float(values[f"latency {stage} p95 (ms)"])
    assert values["model"].endswith("red.onnx")
    assert "onnxruntime" in values["backend"]
    assert values["backend chosen because"]


def test_the_process_has_no_torch(live: Live) -> None:
    assert "libtorch" not in Path(f"/proc/{live.node.pid}/maps").read_text()


def test_the_rectified_image_takes_p(
    live: Live, outputs: dict[str, Collector], calibrated: None
) -> None:
    info = info_of()
    info.p = [2 * value for value in info.p]
    rgb_hwc = random_rgb(seed=5)
    try:
        assert live.probe.set_parameters(camera_matrix="P")[0].successful
        expected_m = red_depth(rgb_hwc, 2 * CAMERA.mean_focal_px)
        for _ in range(20):
            live.probe.send_info(info)
            message = image_message(rgb_hwc, header(next(STAMPS)), "rgb8")
            depth_m = depth_of(ask_depth(live, outputs, message))
            if np.allclose(depth_m, expected_m, rtol=1e-5):
                return
        raise AssertionError("the depth never followed P")
    finally:
        live.probe.set_parameters(camera_matrix="auto")
