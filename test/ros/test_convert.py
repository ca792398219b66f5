"""Conversions between messages and arrays, against hand-made values."""

from __future__ import annotations

import array
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointField
from std_msgs.msg import Header

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import stamp_ns
from dense_perception.ros import convert
from dense_perception.ros.convert import (
    CloudWriter,
    camera_info_message,
    depth_message,
    image_message,
    rgb_from_message,
)
from dense_perception.ros.convert import image_bridge as find_bridge
from test.support.ros_probe import header, random_rgb


def test_stamp_is_exact() -> None:
    message = Header()
    message.stamp.sec, message.stamp.nanosec = 2_000_000_000, 999_999_999
    assert stamp_ns(message) == 2_000_000_000_999_999_999


def test_rgb8_is_a_view_of_the_message() -> None:
    message = image_message(random_rgb(), header(1), "rgb8")
    rgb_hwc = rgb_from_message(message)
    np.testing.assert_array_equal(rgb_hwc, random_rgb())
    message.data[0] ^= 255
    assert rgb_hwc[0, 0, 0] == random_rgb()[0, 0, 0] ^ 255


def test_image_message_fields() -> None:
    message = image_message(np.zeros((2, 5, 3), np.uint8)[:, ::2], header(3), "rgb8")
    assert (message.height, message.width, message.step) == (2, 3, 9)
    assert message.header == header(3)
    assert len(message.data) == 18
    assert message.is_bigendian == (sys.byteorder == "big")


def test_depth_in_metres_keeps_nan() -> None:
    depth_m = np.array([[0.5, np.nan], [np.inf, 70.0]], np.float32)
    message = depth_message(depth_m, header(1))
    assert (message.encoding, message.step) == ("32FC1", 8)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32), depth_m.ravel())


def test_depth_in_millimetres_has_zero_for_what_is_invalid_or_too_far() -> None:
    depth_m = np.array(
        [[1.2344, 1.2346, np.nan, np.inf], [-np.inf, -1.0, 65.535, 65.536]], np.float32
    )
    message = depth_message(depth_m, header(1), "16UC1")
    assert (message.encoding, message.step) == ("16UC1", 8)
    values = np.frombuffer(message.data, np.uint16).tolist()
    assert values == [1234, 1235, 0, 0, 0, 0, 65535, 0]
    with pytest.raises(InputError, match="64FC1"):
        depth_message(depth_m, header(1), "64FC1")


def test_cloud_layouts() -> None:
    camera = Intrinsics(3, 2, 2.0, 4.0, 1.0, 0.5)
    depth_m = np.array([[1, 2, np.nan], [4, 5, 6]], np.float32)
    rgb_hwc = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    writer = CloudWriter()
    for message, names, step in [
        (writer.cloud(depth_m, camera, header(4)), ["x", "y", "z"], 12),
        (writer.cloud(depth_m, camera, header(4), rgb_hwc=rgb_hwc), ["x", "y", "z", "rgb"], 16),
    ]:
        assert (message.height, message.width) == (2, 3)
        assert (message.point_step, message.row_step) == (step, 3 * step)
        assert [field.name for field in message.fields] == names
        assert [field.offset for field in message.fields] == [0, 4, 8, 12][: len(names)]
        assert {field.datatype for field in message.fields} == {PointField.FLOAT32}
        assert not message.is_dense
        assert message.header == header(4)
        values = np.frombuffer(message.data, "<f4").reshape(2, 3, step // 4)
        # Row 1, column 2: x = (2 - 1) / 2 * 6, y = (1 - 0.5) / 4 * 6.
        np.testing.assert_allclose(values[1, 2, :3], [3.0, 0.75, 6.0])
        assert np.isnan(values[0, 2, :3]).all()
        if step == 16:
            packed = values.view("<u4")[..., 3]
            assert packed[1, 2] == (15 << 16) + (16 << 8) + 17


def test_clouds_with_labels() -> None:
    camera = Intrinsics(3, 2, 2.0, 4.0, 1.0, 0.5)
    depth_m = np.array([[1, 2, np.nan], [4, 5, 6]], np.float32)
    rgb_hwc = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    for dtype, labels in [(np.uint8, [0, 7, 255]), (np.uint16, [0, 300, 65535])]:
        labels_hw = np.array([labels, labels[::-1]], dtype)
        writer = CloudWriter()
        for rgb, names in [(None, "x y z label"), (rgb_hwc, "x y z rgb label")]:
            message = writer.cloud(depth_m, camera, header(4), rgb_hwc=rgb, labels_hw=labels_hw)
            assert [field.name for field in message.fields] == names.split()
            label = message.fields[-1]
            assert (label.datatype, label.offset) == (PointField.UINT32, message.point_step - 4)
            words = np.frombuffer(message.data, "<u4").reshape(2, 3, -1)
            assert words[..., -1].tolist() == labels_hw.tolist()
            np.testing.assert_array_equal(words[..., 2].copy().view("<f4"), depth_m)
    with pytest.raises(InputError, match="labels are of shape"):
        CloudWriter().cloud(depth_m, camera, header(4), labels_hw=labels_hw[:1])


def test_clouds_are_rewritten_in_place() -> None:
    camera = Intrinsics.from_fov(4, 3, 60.0)
    black = np.zeros((3, 4, 3), np.uint8)
    writer = CloudWriter()
    first = writer.cloud(np.full((3, 4), 1, np.float32), camera, header(1), rgb_hwc=black)
    buffer = first.data
    second = writer.cloud(np.full((3, 4), 2, np.float32), camera, header(2), rgb_hwc=black)
    assert second.data is buffer
    assert second.header == header(2)
    assert set(np.frombuffer(buffer, "<f4")[2::4]) == {2.0}
    large = np.full((6, 8), 3, np.float32)
    other = writer.cloud(large, camera.resized(8, 6), header(3), rgb_hwc=black)
    assert (other.height, other.width, len(other.data)) == (6, 8, 6 * 8 * 16)


def test_camera_info_message_scales_stereo_and_keeps_distortion() -> None:
    info = CameraInfo(width=640, height=480, distortion_model="rational_polynomial")
    info.d = [0.1, 0.2, 0.0, 0.0, 0.3, 0.0, 0.0, 0.1]
    info.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    info.p = [480.0, 0.0, 310.0, -48.0, 0.0, 490.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    output = camera_info_message(info, Intrinsics(320, 240, 1.0, 1.0, 0.0, 0.0), header(5))
    assert (output.width, output.height) == (320, 240)
    assert output.header == header(5)
    assert output.distortion_model == "rational_polynomial"
    assert output.d.tolist() == info.d.tolist()
    np.testing.assert_allclose(output.k, [250, 0, 159.75, 0, 255, 119.75, 0, 0, 1])
    np.testing.assert_allclose(output.p, [240, 0, 154.75, -24, 0, 245, 114.75, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(output.r, info.r)
    assert output.binning_x == output.binning_y == output.roi.width == 0


def test_broken_compressed_image_is_named() -> None:
    message = CompressedImage(format="jpeg", data=array.array("B", b"nothing of use"))
    with pytest.raises(InputError, match="expected JPEG, PNG"):
        rgb_from_message(message)


class _Bridge:
    def imgmsg_to_cv2(self, message: Image, encoding: str) -> np.ndarray:
        assert encoding == "rgb8"
        if message.encoding == "yuv999":
            raise RuntimeError("no conversion")
        return np.full((message.height, message.width, 3), 7, np.uint8)


def test_cv_bridge_serves_what_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Image(height=2, width=3, encoding="yuv444", step=9, data=bytes(18))
    with pytest.raises(InputError, match="unknown image encoding 'yuv444'"):
        rgb_from_message(message)
    monkeypatch.setattr(convert, "image_bridge", _Bridge)
    assert rgb_from_message(message).shape == (2, 3, 3)
    message.encoding = "yuv999"
    with pytest.raises(InputError, match=r"cv_bridge cannot convert .* 'yuv999'"):
        rgb_from_message(message)
    message.encoding = "rgb8"  # what is known never reaches it
    assert rgb_from_message(message).max() == 0


@pytest.mark.parametrize(
    ("probe_code", "usable"), [("pass", True), ("import os; os.abort()", False)]
)
def test_a_cv_bridge_that_crashes_is_not_used(
    monkeypatch: pytest.MonkeyPatch, probe_code: str, usable: bool
) -> None:
    fake = ModuleType("cv_bridge")
    fake.CvBridge = _Bridge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv_bridge", fake)
    monkeypatch.setattr(convert, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(convert, "_PROBE", probe_code)
    find_bridge.cache_clear()
    try:
        assert isinstance(find_bridge(), _Bridge) is usable
    finally:
        find_bridge.cache_clear()


@pytest.mark.parametrize(
    ("library", "here", "cure"),
    [
        ("libopencv_core.so.406", "5.0.0", "opencv-python-headless<5"),  # Debian 12's
        ("libopencv_core.so.4.5d", "5.0.0", "opencv-python-headless<5"),  # Ubuntu 22.04's
        ("libopencv_core.so.500", "4.12.0", "opencv-python-headless>=5"),
        ("libopencv_core.so.406", "4.12.0", None),
        ("libopencv_core.so.3.2", "4.12.0", None),  # the same numbers
        ("libopencv_core.so.500", "5.1.0", None),
        ("libboost_python311.so.1.74", "5.0.0", None),
    ],
)
def test_a_cv_bridge_for_another_opencv_is_named_with_the_cure(
    library: str, here: str, cure: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = tmp_path / "cv_bridge" / "boost"
    compiled.mkdir(parents=True)
    (compiled.parent / "__init__.py").touch()
    (compiled / "cv_bridge_boost.cpython-311-x86_64-linux-gnu.so").write_bytes(
        b"\x7fELF\0libm.so.6\0" + library.encode() + b"\0"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("cv2.__version__", here)
    doubt = convert.cv_bridge_doubt()
    assert (doubt is not None) is (cure is not None)
    if doubt is not None:
        assert f"pip install '{cure}'" in doubt
        assert here in doubt


def test_without_cv_bridge_there_is_nothing_to_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "find_spec", lambda name: None)
    assert convert.cv_bridge_doubt() is None
