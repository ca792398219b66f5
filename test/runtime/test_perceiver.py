"""The perceiver against a model whose every pixel is known."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception import Perceiver
from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.card_specs import DepthSpec
from dense_perception.core.errors import BackendError, CardError, InputError, ModelNotFoundError
from dense_perception.core.prediction import DepthKind
from test.support.artefacts import red_card, red_depth, write_red_artefact
from test.support.models import write_model

BACKENDS = ["onnxruntime", "openvino"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    path = tmp_path / "red_depth.onnx"
    write_red_artefact(path)
    return path


@pytest.fixture
def perceiver(artefact: Path) -> Perceiver:
    return Perceiver.load(artefact, backend="onnxruntime", threads=1)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def flat_image(height: int, width: int, red: int = 255) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = red
    return image


@pytest.mark.parametrize("backend", BACKENDS)
def test_image_of_the_network_size_is_answered_exactly(artefact: Path, backend: str) -> None:
    image, camera = random_image(48, 64), Intrinsics(64, 48, 50, 50, 31, 23)
    with Perceiver.load(artefact, backend=backend, threads=1) as perceiver:
        prediction = perceiver(Frame(image, 123, "camera_optical", camera))
        assert prediction.depth is not None
        np.testing.assert_allclose(prediction.depth.metres(), red_depth(image, 50), rtol=1e-5)
        assert (prediction.stamp_ns, prediction.frame_id) == (123, "camera_optical")
        assert prediction.intrinsics == camera
        assert not prediction.intrinsics_assumed
        assert set(prediction.timings_ms) == {"prepare", "infer", "restore"}
        assert perceiver.selection.backend == backend


@pytest.mark.parametrize("size", [(480, 640), (96, 64), (30, 40), (37, 200), (1, 1)])
def test_any_size_gets_depth_of_its_size_and_metric_scale(
    perceiver: Perceiver, size: tuple[int, int]
) -> None:
    height, width = size
    camera = Intrinsics(width, height, 2.0 * width, 3.0 * height, 0, 0)
    prediction = perceiver(flat_image(height, width), intrinsics=camera)
    assert prediction.depth is not None
    # At 64x48 the focal lengths are 2 * 64 and 3 * 48; the network is told their geometric mean.
    expected = 10 * np.sqrt(2 * 64 * 3 * 48) / 64
    assert prediction.depth.metres().shape == size
    np.testing.assert_allclose(prediction.depth.metres(), expected, rtol=1e-5)
    assert prediction.intrinsics == camera


def test_depth_lines_up_with_the_image(perceiver: Perceiver) -> None:
    """A bright square stays where it is on the way to the network and back."""
    image = np.zeros((480, 640, 3), np.uint8)
    image[120:240, 320:480] = 255
    prediction = perceiver(image, intrinsics=Intrinsics(640, 480, 640, 640, 320, 240))
    assert prediction.depth is not None
    depth = prediction.depth.metres()
    near, far = 10 * 640 / 640, 1.0
    rows, columns = np.nonzero(depth > (near + far) / 2)
    for edge, want in zip(
        (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1),
        (120, 240, 320, 480),
        strict=True,
    ):
        assert abs(edge - want) <= 1


def test_missing_intrinsics_are_assumed_and_said(artefact: Path) -> None:
    perceiver = Perceiver.load(artefact, backend="onnxruntime", default_hfov_deg=90)
    prediction = perceiver(flat_image(48, 64))
    assert prediction.intrinsics_assumed
    assert prediction.intrinsics == Intrinsics.from_fov(64, 48, 90)
    assert prediction.depth is not None
    np.testing.assert_allclose(prediction.depth.metres(), 10 * 32 / 64, rtol=1e-5)


def test_given_intrinsics_replace_the_frames_own(perceiver: Perceiver) -> None:
    frame = Frame(flat_image(48, 64), intrinsics=Intrinsics(64, 48, 64, 64, 0, 0))
    prediction = perceiver(frame, intrinsics=Intrinsics(64, 48, 128, 128, 0, 0))
    assert prediction.depth is not None
    np.testing.assert_allclose(prediction.depth.metres(), 20, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_equals_one_by_one(artefact: Path, backend: str) -> None:
    perceiver = Perceiver.load(artefact, backend=backend, threads=1)
    frames = [
        Frame(random_image(height, width, seed), seed)
        for seed, (height, width) in enumerate([(48, 64), (100, 80), (48, 64)])
    ]
    batch = perceiver.perceive(frames)
    assert [prediction.stamp_ns for prediction in batch] == [0, 1, 2]
    for frame, prediction in zip(frames, batch, strict=True):
        alone = perceiver(frame)
        assert prediction.depth is not None
        assert alone.depth is not None
        np.testing.assert_allclose(
            prediction.depth.values_hw, alone.depth.values_hw, rtol=1e-6, equal_nan=True
        )
    assert perceiver.perceive([]) == []


@pytest.mark.parametrize("output_size", ["input", "network"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prediction_outlives_the_next_call(
    artefact: Path, backend: str, output_size: str
) -> None:
    perceiver = Perceiver.load(artefact, backend=backend, output_size=output_size)
    first = perceiver(flat_image(48, 64, 255))
    assert first.depth is not None
    kept = first.depth.values_hw.copy()
    perceiver(flat_image(48, 64, 0))
    assert np.array_equal(first.depth.values_hw, kept)


def test_network_size_output(artefact: Path) -> None:
    perceiver = Perceiver.load(artefact, backend="onnxruntime", output_size="network")
    camera = Intrinsics(640, 480, 500, 500, 319.5, 239.5)
    prediction = perceiver(random_image(480, 640), intrinsics=camera)
    assert (prediction.width, prediction.height) == (64, 48)
    assert prediction.intrinsics == camera.resized(64, 48)


def test_huge_image_is_answered_scaled_down(artefact: Path) -> None:
    perceiver = Perceiver.load(artefact, backend="onnxruntime", max_output_side=1280)
    camera = Intrinsics.from_fov(8000, 6000, 70)
    prediction = perceiver(flat_image(6000, 8000), intrinsics=camera)
    assert (prediction.width, prediction.height) == (1280, 960)
    assert prediction.intrinsics == camera.resized(1280, 960)
    assert prediction.depth is not None
    expected = 10 * camera.resized(64, 48).mean_focal_px / 64
    np.testing.assert_allclose(prediction.depth.metres(), expected, rtol=1e-5)


def test_values_past_the_cards_limits_become_nan(tmp_path: Path) -> None:
    card = replace(red_card(), depth=DepthSpec(DepthKind.METRIC, 2.0, 9.0))
    write_red_artefact(tmp_path / "limited.onnx", card)
    perceiver = Perceiver.load(tmp_path / "limited.onnx", backend="onnxruntime")
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0] = np.arange(64) * 4
    prediction = perceiver(image, intrinsics=Intrinsics(64, 48, 64, 64, 0, 0))
    assert prediction.depth is not None
    expected = red_depth(image, 64)
    expected[(expected < 2) | (expected > 9)] = np.nan
    assert np.isnan(expected).any()
    np.testing.assert_allclose(prediction.depth.metres(), expected, rtol=1e-5)


def test_a_relative_model_has_no_metres(tmp_path: Path) -> None:
    card = replace(red_card(), depth=DepthSpec(DepthKind.RELATIVE_INVERSE))
    write_red_artefact(tmp_path / "relative.onnx", card)
    prediction = Perceiver.load(tmp_path / "relative.onnx")(flat_image(48, 64))
    assert prediction.depth is not None
    assert np.isfinite(prediction.depth.values_hw).all()
    with pytest.raises(InputError, match="relative_inverse"):
        prediction.depth.metres()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((48, 64, 3), np.float32),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        "photo.jpg",
        None,
    ],
)
def test_wrong_image_is_refused_and_the_next_is_answered(
    perceiver: Perceiver, image: object
) -> None:
    with pytest.raises(InputError, match="expected"):
        perceiver(image)  # type: ignore[arg-type]
    assert perceiver(flat_image(48, 64)).depth is not None


def test_intrinsics_of_another_size(perceiver: Perceiver) -> None:
    with pytest.raises(InputError, match="resized"):
        perceiver(flat_image(48, 64), intrinsics=Intrinsics(640, 480, 500, 500, 320, 240))


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"default_hfov_deg": 0.0}, "field of view"),
        ({"output_size": "big"}, "output_size"),
        ({"max_output_side": 0}, "max_output_side"),
    ],
)
def test_wrong_settings(artefact: Path, setting: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Perceiver.load(artefact, **setting)  # type: ignore[arg-type]


def test_card_that_contradicts_its_graph(tmp_path: Path) -> None:
    card = red_card()
    write_red_artefact(tmp_path / "liar.onnx", input=replace(card.input, height=32))
    for backend in ("auto", *BACKENDS):
        with pytest.raises(CardError, match="contradicts its graph"):
            Perceiver.load(tmp_path / "liar.onnx", backend=backend)


def test_closed(perceiver: Perceiver) -> None:
    perceiver.close()
    perceiver.close()
    with pytest.raises(BackendError, match="closed"):
        perceiver(flat_image(48, 64))


def test_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "models", precisions=("fp32", "int8"))
    monkeypatch.setenv("DENSE_PERCEPTION_MODELS", str(tmp_path / "models"))
    perceiver = Perceiver.load("red_depth")
    depth = perceiver(random_image(480, 640)).depth
    assert depth is not None
    assert depth.metres().shape == (480, 640)
    with pytest.raises(ModelNotFoundError, match="red_depth"):
        Perceiver.load("read_depth")


def test_non_contiguous_and_read_only_images(perceiver: Perceiver) -> None:
    image = random_image(48, 128)
    view = image[:, ::2]
    expected = perceiver(np.ascontiguousarray(view)).depth
    padded = image[:, :64]
    padded.setflags(write=False)
    assert expected is not None
    got = perceiver(view).depth
    assert got is not None
    assert np.array_equal(got.values_hw, expected.values_hw)
    assert perceiver(padded).depth is not None


def test_a_second_thread_gets_an_error_instead_of_anothers_answer(
    perceiver: Perceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, inside, go_on = perceiver.backend.infer, threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        inside.set()
        assert go_on.wait(10)
        return infer(*arguments, **options)

    monkeypatch.setattr(perceiver.backend, "infer", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(perceiver, flat_image(48, 64))
        assert inside.wait(10)
        with pytest.raises(BackendError, match="two threads use one Perceiver"):
            perceiver(flat_image(48, 64, 0))
        go_on.set()
        assert first.result().depth is not None
    assert perceiver(flat_image(48, 64)).depth is not None
