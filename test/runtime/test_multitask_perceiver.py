"""The corridor with a model of every task whose maps are known in closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception import Perceiver
from dense_perception.cli import main
from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError, CardError, InputError
from dense_perception.core.prediction import MAPS
from test.support.multitask_artefacts import (
    multitask_answer,
    multitask_card,
    without_depth,
    write_multitask_artefact,
)

BACKENDS = ["onnxruntime", "openvino"]
IMAGE = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
CAMERA = Intrinsics(64, 48, 50, 50, 31, 23)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def load(tmp_path: Path, card: ModelCard | None = None, **settings: Any) -> Perceiver:
    write_multitask_artefact(tmp_path / "model.onnx", card)
    settings = {"backend": "onnxruntime", "threads": 1, **settings}
    return Perceiver.load(tmp_path / "model.onnx", **settings)


def values(prediction: Any, name: str) -> np.ndarray:
    entry = getattr(prediction, name)
    return entry.values_hwc if name == "normals" else entry.values_hw


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_map_of_a_frame_of_the_networks_size_is_exact(tmp_path: Path, backend: str) -> None:
    with load(tmp_path, backend=backend) as perceiver:
        prediction = perceiver(Frame(IMAGE, intrinsics=CAMERA))
    expected = multitask_answer(IMAGE, 50)
    for name in ("labels", "edges", "keypoints", "reshading"):
        assert np.array_equal(values(prediction, name), expected[name]), name
    assert np.array_equal(prediction.labels.confidence_hw, expected["confidence"])
    for name in ("depth", "normals"):
        np.testing.assert_allclose(values(prediction, name), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", [{"normals"}, {"labels"}, {"depth", "edges"}, set(MAPS)])
def test_only_what_is_wanted_is_given_and_it_is_the_same(
    tmp_path: Path, backend: str, wanted: set[str]
) -> None:
    with load(tmp_path, backend=backend) as perceiver:
        whole = perceiver(Frame(IMAGE, intrinsics=CAMERA))
        part = perceiver.perceive([Frame(IMAGE, intrinsics=CAMERA)], wanted)[0]
    assert {name for name in MAPS if getattr(part, name) is not None} == wanted
    assert (part.width, part.height) == (64, 48)
    for name in wanted:
        assert np.array_equal(values(part, name), values(whole, name)), name


@pytest.mark.parametrize("wanted", [set(), {"colour"}, {"depth", "confidence"}])
def test_wanting_nothing_or_what_is_not_given(tmp_path: Path, wanted: set[str]) -> None:
    with load(tmp_path) as perceiver:
        with pytest.raises(InputError, match=r"gives \['depth', 'labels', 'normals'"):
            perceiver.perceive([Frame(IMAGE)], wanted)
        feeds = {"image": IMAGE[None], "focal_px": np.ones(1, np.float32)}
        with pytest.raises(BackendError, match="the graph gives"):
            perceiver.backend.infer(feeds, wanted - {"depth", "confidence"})


def test_maps_of_any_size_line_up_and_normals_stay_unit_vectors(tmp_path: Path) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[120:240, 320:480] = (255, 240, 255)
    with load(tmp_path) as perceiver:
        prediction = perceiver(image)
    inside = multitask_answer(image[200:201, 400:401], 1)
    assert np.array_equal(prediction.labels.values_hw == 15, image[..., 0] == 255)
    for name in ("edges", "keypoints", "reshading"):
        gray = values(prediction, name)
        assert gray.shape == (480, 640)
        rows, columns = np.nonzero(gray > 127)
        edges = np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1])
        assert np.abs(edges - (120, 240, 320, 480)).max() <= 1
    normals = values(prediction, "normals")
    np.testing.assert_allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(normals[200, 400], inside["normals"][0, 0], atol=1e-5)


def test_batches_of_several_sizes(tmp_path: Path) -> None:
    frames = [Frame(IMAGE), Frame(IMAGE[::2]), Frame(np.repeat(IMAGE, 3, axis=1))]
    with load(tmp_path) as perceiver:
        for frame, got in zip(
            frames, perceiver.perceive(frames, {"normals", "edges"}), strict=True
        ):
            alone = perceiver(frame)
            for name in ("normals", "edges"):
                assert values(got, name).shape[:2] == (frame.height, frame.width)
                np.testing.assert_allclose(values(got, name), values(alone, name), atol=1e-6)


@pytest.mark.parametrize("maps", [("edges",), ("normals", "reshading")])
def test_subsets_of_the_tasks(tmp_path: Path, maps: tuple[str, ...]) -> None:
    card = without_depth(replace(multitask_card(), segmentation=None, maps=maps))
    with load(tmp_path, card) as perceiver:
        prediction = perceiver(IMAGE)
    assert {name for name in MAPS if getattr(prediction, name) is not None} == set(maps)


def test_a_map_that_the_graph_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "liar.onnx"
    write_multitask_artefact(path, replace(multitask_card(), maps=("edges",)))
    import onnx

    from dense_perception.export.graph_file import embed_card, write_onnx

    model = onnx.load(path)
    embed_card(model, multitask_card())
    write_onnx(model, path)
    with pytest.raises(CardError, match="normals"):
        Perceiver.load(path, backend="onnxruntime")


def test_run_writes_a_picture_of_every_map(tmp_path: Path) -> None:
    import cv2

    write_multitask_artefact(tmp_path / "model.onnx")
    cv2.imwrite(str(tmp_path / "photo.png"), IMAGE[..., ::-1])
    words = ["run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "photo.png")]
    words += ["--output", str(tmp_path / "out"), "--quiet", "--backend", "onnxruntime"]
    assert main(words) == 0
    expected = multitask_answer(IMAGE, 1)
    for name in ("edges", "keypoints", "reshading", "labels", "confidence"):
        written = cv2.imread(str(tmp_path / "out" / name / "photo.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(written, expected[name]), name
    normals = np.load(tmp_path / "out" / "normals" / "photo.npy")
    np.testing.assert_allclose(normals, expected["normals"], atol=1e-6)
    colour = cv2.imread(str(tmp_path / "out" / "normals_color" / "photo.png"))[..., ::-1]
    want = expected["normals"] * (127, -127, -127) + 128
    assert np.abs(colour - want).max() <= 1
