"""Calibration frames from disk, and statistics against NumPy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.registry import find_card
from dense_perception.data.description import write_description
from dense_perception.data.sample import Sample
from dense_perception.data.shards import write_shard
from dense_perception.export.calibration import (
    Statistics,
    calibration_frames,
    check_variety,
    differ,
    observe,
    split_frames,
    thumbnail,
)
from test.export.conftest import tiny_card
from test.export.test_quantize import frames, run, toy


def test_statistics_are_numpys() -> None:
    found = observe(toy(), {"x": 1, "r1": 1, "t": -1}, frames(), histograms=False)
    feeds = {"x": np.concatenate([f["x"] for f in frames()])}
    relu = np.maximum(run(toy(), feeds)["c1"], 0)
    assert found["r1"].largest == pytest.approx(relu.max(), rel=1e-6)
    np.testing.assert_allclose(found["r1"].channel_mean, relu.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["x"].channel_mean, feeds["x"].mean((0, 2, 3)), rtol=1e-5)


def statistics_of(array: np.ndarray) -> Statistics:
    statistics = Statistics(1)
    statistics.add(array)
    statistics.add_histogram(array)
    return statistics


def test_limits() -> None:
    random = np.random.RandomState(0)
    spread = random.uniform(-1, 1, (1, 4, 100, 100))
    peaked = random.laplace(0, 0.1, (1, 4, 100, 100))
    peaked[0, 0, 0, 0] = -20
    uniform, outlier = statistics_of(spread), statistics_of(peaked)
    assert uniform.limit("minmax", 0) == pytest.approx(1, abs=1e-3)
    assert uniform.limit("percentile", 90) == pytest.approx(0.9, abs=0.01)
    assert uniform.limit("mse", 0) == pytest.approx(1, abs=0.02)
    assert outlier.limit("minmax", 0) == 20
    # 99.9 % of a Laplace distribution's magnitudes lie below 6.9 scales.
    assert outlier.limit("percentile", 99.9) == pytest.approx(0.69, abs=0.05)
    assert statistics_of(np.zeros((1, 2, 3, 3))).limit("mse", 0) == 1


def test_mse_limit_is_as_good_as_the_best() -> None:
    random = np.random.RandomState(0)
    array = random.standard_t(3, (1, 4, 100, 100))

    def error(limit: float) -> float:
        step = limit / 127
        return float(np.square(np.rint(array / step).clip(-127, 127) * step - array).mean())

    statistics = statistics_of(array)
    limits = statistics.largest * np.linspace(0.05, 1, 100)
    best = min(error(limit) for limit in limits)
    assert error(statistics.limit("mse", 0)) < 1.1 * best
    assert error(statistics.largest) > 1.15 * best


@pytest.mark.parametrize(("histograms", "passes"), [(False, 1), (True, 2)])
def test_every_frame_is_told(histograms: bool, passes: int) -> None:
    told: list[tuple[int, int]] = []
    total = passes * len(list(frames()))
    observe(toy(), {"r1": 1}, frames(), histograms, lambda done, of: told.append((done, of)))
    assert told == [(done, total) for done in range(1, total + 1)]


def test_no_frames() -> None:
    with pytest.raises(InputError, match="no calibration frames"):
        observe(toy(), {"r1": 1}, [], histograms=False)


def test_corpus_is_sampled_evenly(tmp_path: Path) -> None:
    for shard in range(3):
        folder = tmp_path / f"shard_{shard:05d}"
        folder.mkdir()
        values = np.arange(10 * shard, 10 * shard + 10, dtype=np.uint8)
        images = np.broadcast_to(values[:, None, None, None], (10, 64, 96, 3))
        np.save(folder / "rgb.npy", np.ascontiguousarray(images))
    found = calibration_frames(tmp_path, tiny_card(), 4)
    assert [int(f["image"][0, 0, 0, 0]) for f in found] == [0, 10, 19, 29]
    assert found[0]["image"].shape == (1, 64, 96, 3)
    np.testing.assert_array_equal(found[0]["focal_px"], [96.0])
    assert len(calibration_frames(tmp_path, tiny_card(), 1000)) == 30


def test_a_corpus_of_tar_shards_is_sampled_evenly(tmp_path: Path) -> None:
    camera = Intrinsics(96, 64, 90, 90, 47.5, 31.5)
    samples = [
        Sample(np.full((64, 96, 3), 8 * k, np.uint8), np.ones((64, 96), np.float32), camera)
        for k in range(30)
    ]
    write_shard(tmp_path, 0, samples[:20])
    write_shard(tmp_path, 1, samples[20:])
    write_description(tmp_path, {})
    found = calibration_frames(tmp_path, tiny_card(), 4)
    shades = [float(f["image"].mean()) for f in found]
    assert shades == pytest.approx([0, 80, 152, 232], abs=2)


def test_pictures_are_rgb_and_resized(tmp_path: Path) -> None:
    red_bgr = np.zeros((30, 40, 3), np.uint8)
    red_bgr[..., 2] = 255
    cv2.imwrite(str(tmp_path / "red.png"), red_bgr)
    (frame,) = calibration_frames(tmp_path, tiny_card())
    assert frame["image"].shape == (1, 64, 96, 3)
    assert (frame["image"][0, 5, 5] == [255, 0, 0]).all()


def test_a_video_and_a_bag_are_sampled_evenly(tmp_path: Path) -> None:
    images = [np.full((48, 64, 3), 8 * index, np.uint8) for index in range(30)]
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for image in images:
        video.write(image)
    video.release()
    found = calibration_frames(tmp_path / "v.avi", tiny_card(), 4)
    shades = [float(frame["image"].mean()) for frame in found]
    assert len(found) == 4
    assert shades[0] == pytest.approx(0, abs=6)
    assert shades[-1] > 190
    assert np.diff(shades).min() > 40
    with pytest.raises(InputError, match="there is no"):
        calibration_frames(tmp_path / "no.mp4", tiny_card())


def test_unusable_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures and no corpus"):
        calibration_frames(tmp_path, tiny_card())
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(InputError, match=r"broken\.jpg cannot be read"):
        calibration_frames(tmp_path, tiny_card())
    shard = tmp_path / "shard_00000"
    shard.mkdir()
    np.save(shard / "rgb.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match=r"float32 \(2, 3\), expected uint8"):
        calibration_frames(tmp_path, tiny_card())
    np.save(shard / "rgb.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"cannot read .*rgb\.npy"):
        calibration_frames(tmp_path, tiny_card())


def frame(seed: int | None, noise: int = 0) -> dict[str, np.ndarray]:
    """A coarse random picture, or a black one."""
    image_hwc = np.zeros((64, 96, 3), np.uint8)
    if seed is not None:
        blocks = np.random.default_rng(seed).integers(20, 230, (8, 12, 3))
        image_hwc = blocks.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
        grain = np.random.default_rng(seed + noise).integers(-3, 4, image_hwc.shape)
        image_hwc = (image_hwc + grain * bool(noise)).astype(np.uint8)
    return {"image": image_hwc[None]}


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([frame(None)] * 64, "are flat"),
        ([frame(1)], "are one and the same picture"),
        ([frame(1, noise) for noise in range(1, 65)], "are one and the same picture"),
    ],
)
def test_frames_that_show_one_picture_or_nothing_are_refused(
    frames: list[dict[str, np.ndarray]], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        check_variety(frames, "drive.mp4")


def test_few_different_frames_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_variety([frame(seed) for seed in range(8)] * 2, "drive.mp4")
    assert not caplog.records
    check_variety([frame(seed) for seed in (1, 2, 3)] * 20, "drive.mp4")
    assert "only 3 of the 60 calibration frames of drive.mp4 differ" in caplog.text


def test_the_drop_is_judged_on_other_pictures() -> None:
    seeds = [0, 1, 2, 3] * 8 + list(range(4, 36))
    kept, judged = split_frames([frame(seed) for seed in seeds])
    assert len(judged) == 8
    for one in judged:
        assert all(differ(thumbnail(one), thumbnail(other)) for other in kept)
    # All alike but two: one of them judges, and what it shows is not calibrated on.
    kept, judged = split_frames([frame(1)] * 40 + [frame(2)] * 24)
    assert (len(kept), len(judged)) == (40, 1)


def test_pictures_of_several_aspects_become_one_size(tmp_path: Path) -> None:
    """The rule of a network of free sizes; observing needs equal sizes."""
    card = find_card("depth_anything_v2_small")
    for index, (width, height) in enumerate([(64, 48), (64, 48), (96, 54)]):
        cv2.imwrite(
            str(tmp_path / f"{index}.png"), np.full((height, width, 3), 40 * index, np.uint8)
        )
    found = calibration_frames(tmp_path, card)
    assert [frame["image"].shape for frame in found] == [(1, 518, 686, 3)] * 3
    assert [int(frame["image"].mean()) for frame in found] == [0, 40, 80]
    found = calibration_frames(tmp_path, find_card("dpt_hybrid_midas"))
    assert {frame["image"].dtype.name for frame in found} == {"float32"}
