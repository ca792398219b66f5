"""Networks of free sizes and of windows through the perceiver, in every runtime on a CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dense_perception.backends.opening import installed_backends
from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.card import METADATA_KEY, ModelCard
from dense_perception.core.card_specs import InputSpec
from dense_perception.core.errors import EngineRefusedError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.prediction import DepthKind
from dense_perception.core.registry import find_card
from dense_perception.runtime.perceiver import Perceiver

DEPTH = replace(find_card("depth_anything_v2_small"), source=None)
LABELS = replace(find_card("segmenter_large_mask_cityscapes"), source=None)


def save(graph: onnx.GraphProto, card: ModelCard, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: card.embedded_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def red_graph(card: ModelCard, path: Path) -> Path:
    """The depth is the red channel, of any size."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["float", "first"], ["depth"], axis=3),
    ]
    first = helper.make_tensor("first", TensorProto.INT64, [], [0])
    pixels = helper.np_dtype_to_tensor_dtype(np.dtype(card.input.dtype))
    image = helper.make_tensor_value_info("image", pixels, ["N", "h", "w", 3])
    depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["N", "h", "w"])
    graph = helper.make_graph(nodes, "network", [image], [depth], [first])
    return save(graph, card, path)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return red_graph(DEPTH, tmp_path / "red.onnx")


@pytest.fixture
def columns(tmp_path: Path) -> Path:
    """Class 0 scores the mean red of each 16x16 block, class 1 the mean green, others nothing."""
    side, patch, classes = 768, 16, len(LABEL_SETS["cityscapes"].labels)
    mixing = np.zeros((classes, 3, 1, 1), np.float32)
    mixing[0, 0], mixing[1, 1] = 1, 1
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["means"], kernel_shape=[patch] * 2, strides=[patch] * 2
        ),
        helper.make_node("Conv", ["means", "mixing"], ["scores"]),
    ]
    weights = onnx.numpy_helper.from_array(mixing, "mixing")
    rows = side // patch
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", side, side, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes, rows, rows])
    graph = helper.make_graph(nodes, "network", [image], [scores], [weights])
    return save(graph, LABELS, tmp_path / "columns.onnx")


@pytest.mark.parametrize("place", ["centre", "corner"])
def test_answers_of_a_letterbox_are_those_of_the_picture(tmp_path: Path, place: str) -> None:
    """The padding has another depth than everything in the picture, and none of it comes back."""
    rule = InputSpec(48, 64, "letterbox", focal=False, pad=(255, 0, 0), place=place)
    path = red_graph(replace(DEPTH, input=rule), tmp_path / "red.onnx")
    rgb_hwc = np.random.default_rng(0).integers(0, 200, (48, 40, 3), np.uint8)
    wide_hwc = rgb_hwc.repeat(3, 0).repeat(3, 1)
    with Perceiver.load(path, backend="onnxruntime") as perceiver:
        exact, enlarged = perceiver.perceive([Frame(rgb_hwc), Frame(wide_hwc)])
        perceiver.output_size = "network"
        small = perceiver(wide_hwc)
    assert exact.depth is not None
    assert enlarged.depth is not None
    assert small.depth is not None
    assert np.array_equal(exact.depth.values_hw, rgb_hwc[..., 0])
    assert (enlarged.width, enlarged.height) == (120, 144)
    # The middle of each block of three has the pixel's own value.
    assert np.allclose(enlarged.depth.values_hw[1::3, 1::3], rgb_hwc[..., 0], atol=1e-4)
    assert (small.width, small.height) == (40, 48)
    assert np.array_equal(small.depth.values_hw, rgb_hwc[..., 0])
    assert small.intrinsics.fx == pytest.approx(exact.intrinsics.fx)


@pytest.mark.parametrize("backend", installed_backends())
def test_pixels_of_a_card_with_floats_are_not_rounded(tmp_path: Path, backend: str) -> None:
    card = replace(DEPTH, input=replace(DEPTH.input, dtype="float32"))
    rgb_hwc = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    path = red_graph(card, tmp_path / "red.onnx")
    with Perceiver.load(path, backend=backend, output_size="network") as perceiver:
        depth = perceiver(rgb_hwc).depth
    assert depth is not None
    want_hw = cv2.resize(rgb_hwc[..., 0] / 255.0, (686, 518), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(depth.values_hw, 255 * want_hw, atol=0.03)


@pytest.mark.parametrize("backend", installed_backends())
def test_each_aspect_has_its_own_size(red: Path, backend: str) -> None:
    ramps = []
    for width, height in ((640, 480), (1280, 720), (480, 640), (640, 480)):
        ramp = np.zeros((height, width, 3), np.uint8)
        ramp[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
        ramps.append(ramp)
    with Perceiver.load(red, backend=backend, output_size="network") as perceiver:
        sizes = [(answer.width, answer.height) for answer in map(perceiver, ramps)]
    assert sizes == [(686, 518), (924, 518), (518, 686), (686, 518)]
    with Perceiver.load(red, backend=backend) as perceiver:
        for ramp in ramps:
            depth = perceiver(ramp).depth
            assert depth is not None
            assert depth.kind is DepthKind.RELATIVE_INVERSE
            assert np.abs(depth.values_hw - ramp[..., 0]).max() < 3
        # Frames of several sizes in one call keep their order.
        together = perceiver.perceive([Frame(ramp) for ramp in ramps])
        assert [(one.width, one.height) for one in together] == [
            (ramp.shape[1], ramp.shape[0]) for ramp in ramps
        ]


def test_intrinsics_follow_every_rule(red: Path, columns: Path) -> None:
    camera = Intrinsics(1280, 720, 900.0, 905.0, 600.0, 350.0)
    picture = np.zeros((720, 1280, 3), np.uint8)
    for path, width, height in ((red, 924, 518), (columns, 1820, 1024)):
        with Perceiver.load(path, backend="onnxruntime") as perceiver:
            assert perceiver(picture, intrinsics=camera).intrinsics == camera
        with Perceiver.load(
            path, backend="onnxruntime", output_size="network", max_output_side=4096
        ) as perceiver:
            answer = perceiver(picture, intrinsics=camera)
            assert answer.intrinsics == camera.resized(width, height)


@pytest.mark.parametrize("backend", installed_backends())
def test_windows_cover_the_picture_and_labels_have_its_size(columns: Path, backend: str) -> None:
    picture = np.zeros((500, 1000, 3), np.uint8)
    picture[:, :430, 0] = 200
    picture[:, 430:, 1] = 200
    with Perceiver.load(columns, backend=backend) as perceiver:
        labels = perceiver(picture).labels
    assert labels is not None
    edge = np.argmax(labels.values_hw == 1, axis=1)
    assert np.ptp(edge) == 0
    # A block of 16 pixels at twice the size is 8 of the picture: the edge is between two of them.
    assert abs(edge[0] - 430) <= 2
    assert (labels.confidence_hw[:, :400] > 250).all()


def test_a_picture_smaller_than_the_window_is_enlarged(columns: Path) -> None:
    picture = cv2.merge([np.full((60, 400), 9, np.uint8)] * 3)
    picture[..., 1] = 90
    with Perceiver.load(columns, backend="onnxruntime") as perceiver:
        labels = perceiver(picture).labels
    assert labels is not None
    assert labels.values_hw.shape == (60, 400)
    assert (labels.values_hw == 1).all()


@pytest.mark.skipif("openvino" not in installed_backends(), reason="openvino is not installed")
def test_a_size_that_openvino_gets_wrong_is_refused(
    red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each size is compared with the reference once, before its first answer."""
    from dense_perception.backends.openvino import OpenVinoBackend, Shapes

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    infer, compiled = OpenVinoBackend._infer, OpenVinoBackend._compile
    sizes = []

    def wrong(self: OpenVinoBackend, request: object, feeds: dict[str, np.ndarray]) -> object:
        factor = np.float32(1.1 if feeds["image"].shape[2] == 924 else 1)
        return {name: factor * map_hw for name, map_hw in infer(self, request, feeds).items()}

    def counted(self: OpenVinoBackend, file: object, model: object, shapes: Shapes) -> object:
        sizes.append(shapes[0][1:3])
        return compiled(self, file, model, shapes)  # type: ignore[arg-type]

    monkeypatch.setattr(OpenVinoBackend, "_infer", wrong)
    monkeypatch.setattr(OpenVinoBackend, "_compile", counted)
    narrow, wide = np.zeros((480, 640, 3), np.uint8), np.zeros((720, 1280, 3), np.uint8)
    narrow[:, 100:] = wide[:, 100:] = 200
    with Perceiver.load(red, backend="openvino") as perceiver:
        for _ in range(2):
            perceiver(narrow)
            with pytest.raises(EngineRefusedError, match="at 924x518 it differs"):
                perceiver(wide)
        assert sizes == [(518, 518), (518, 686), (518, 924)]
    checks = list((tmp_path / "cache").rglob("*.check.json"))
    assert len(checks) == 3
    with Perceiver.load(red, backend="openvino", trust_engine=True) as perceiver:
        perceiver(wide)
