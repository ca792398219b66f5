"""Views made on the training device: against a naive loop in double precision, and the loader."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from dense_perception.core.camera import Intrinsics
from dense_perception.data import photometry
from dense_perception.data.augmentation import AugmentConfig, draw_appearance
from dense_perception.data.corpus import Corpus
from dense_perception.data.sample import Sample
from dense_perception.data.views import Crop
from dense_perception.training import device_photometry
from dense_perception.training.batch import CLEAN, Batch
from dense_perception.training.batches import Batches
from dense_perception.training.config import StageConfig, TrainingConfig
from dense_perception.training.sources import Drawn, Sources, gather
from test.support.corpora import write_corpus, write_things
from test.support.threads import one_thread
from test.training.small_run import CONFIG

CPU = torch.device("cpu")
STAGE = StageConfig(1.0, 48, 40, 3)
TASKS = ("depth", "segmentation", "normals", "reshading", "edges", "keypoints")
PLANE = np.array([0.25, -0.4, 1.0])
CAMERAS = (
    Intrinsics(96, 72, 80.0, 80.0, 44.0, 37.0),
    Intrinsics(64, 80, 60.0, 52.0, 30.0, 41.0),
    Intrinsics(96, 80, 90.0, 90.0, 50.0, 39.5),
)
# A zoom, a roll, a mirror image that is rolled.
CROPS = (
    Crop(50.0, 34.0, 60.0, 44.0),
    Crop(33.0, 45.0, 40.0, 44.0, roll_rad=0.3),
    Crop(47.0, 41.0, 56.0, 50.0, roll_rad=-0.2, mirror=True),
)
STILL = AugmentConfig(
    **{
        entry.name: 0
        for entry in fields(AugmentConfig)
        if entry.name not in ("zoom_min", "aspect_low", "aspect_high")
    }
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def plane(camera: Intrinsics) -> np.ndarray:
    """Its depth, 2 m away along its normal: (H, W) float64."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    return 2 * np.linalg.norm(PLANE) / (PLANE[0] * x + PLANE[1] * y + PLANE[2])


def drawn(camera: Intrinsics, crop: Crop, depth_m: np.ndarray) -> Drawn:
    rng = np.random.default_rng(camera.width)
    shape = (camera.height, camera.width)
    rgb_hwc = cv2.GaussianBlur(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), (0, 0), 2)
    labels_hw = rng.integers(0, 4, shape, dtype=np.uint8)
    sample = Sample(rgb_hwc, depth_m.astype(np.float32), camera, labels_hw)
    look = draw_appearance(STILL, STAGE.width, STAGE.height, rng)
    return Drawn(sample, "key", crop, look)


def to_source(camera: Intrinsics, crop: Crop, u: float, v: float) -> tuple[float, float]:
    """Where a view's pixel lies in its source, by hand."""
    x = ((u + 0.5) / STAGE.width - 0.5) * crop.width * (-1 if crop.mirror else 1)
    y = ((v + 0.5) / STAGE.height - 0.5) * crop.height
    cos, sin = math.cos(crop.roll_rad), math.sin(crop.roll_rad)
    square = camera.fx / camera.fy  # crops are in square pixels
    source_x = crop.centre_x + cos * x - sin * y - 0.5
    return source_x, (crop.centre_y + sin * x + cos * y) / square - 0.5


def bilinear(rgb_hwc: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width = rgb_hwc.shape[:2]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    a, b = x - left, y - top
    four = rgb_hwc[top : top + 2, left : left + 2].astype(np.float64)
    upper, lower = ((1 - a) * row[0] + a * row[1] for row in four)
    return (1 - b) * upper + b * lower


@pytest.fixture(scope="module")
def three() -> tuple[list[Drawn], Sources]:
    """Frames of three sizes whose depths number their pixels, a third of them holes."""
    found = []
    for camera, crop in zip(CAMERAS, CROPS, strict=True):
        numbers = 1 + np.arange(camera.width * camera.height, dtype=np.float64)
        numbers[::3] = 0
        found.append(drawn(camera, crop, numbers.reshape(camera.height, camera.width)))
    return found, gather(found, STAGE, ("depth", "segmentation"), [], taught=False)


def test_every_pixel_is_that_of_a_naive_loop(three: tuple[list[Drawn], Sources]) -> None:
    found, sources = three
    batch = replace(sources, taught=True).ready(CPU)
    clean = batch.targets[CLEAN].numpy().astype(float)
    labels = sources.ready(CPU).targets["segmentation"].numpy()
    checked = 0
    for k, one in enumerate(found):
        height, width = one.sample.depth_m.shape
        for v in range(0, STAGE.height, 3):
            for u in range(0, STAGE.width, 3):
                x, y = to_source(one.sample.intrinsics, one.crop, u, v)
                parts = [
                    bilinear(
                        one.sample.rgb_hwc,
                        *to_source(one.sample.intrinsics, one.crop, u + du, v + dv),
                    )
                    for du in (-0.25, 0.25)
                    for dv in (-0.25, 0.25)
                ]
                assert np.abs(clean[k, v, u] - np.mean(parts, axis=0)).max() <= 1.01
                near = [round(min(max(at, 0), side - 1)) for at, side in ((x, width), (y, height))]
                if min(abs(x % 1 - 0.5), abs(y % 1 - 0.5)) < 1e-3:
                    continue  # on the border of two pixels
                checked += 1
                assert batch.depth_m[k, v, u] == one.sample.depth_m[near[1], near[0]]
                assert one.sample.labels_hw is not None
                label = int(one.sample.labels_hw[near[1], near[0]])
                assert labels[k, v, u] == (255 if label == 0 else label - 1)
    assert checked > 500


def test_a_point_projects_to_the_pixel_that_shows_it(three: tuple[list[Drawn], Sources]) -> None:
    found, sources = three
    depth = sources.ready(CPU).depth_m.numpy().astype(np.float64)
    fx, fy, cx, cy = sources.tensors["view"].numpy().astype(np.float64).T
    np.testing.assert_allclose(sources.tensors["focal"], np.sqrt(fx * fy), rtol=1e-6)
    for k, one in enumerate(found):
        camera = one.sample.intrinsics
        v, u = np.nonzero(depth[k])
        assert len(v) > 0.5 * depth[k].size
        points = np.stack([(u - cx[k]) / fx[k], (v - cy[k]) / fy[k], np.ones(len(u))], axis=1)
        # In the source's camera: turned back, the same depth.
        turned = points @ sources.tensors["turn"][k].numpy().astype(np.float64)
        np.testing.assert_allclose(turned[:, 2], 1, atol=1e-6)
        number = depth[k][v, u] - 1
        across = camera.fx * turned[:, 0] + camera.cx - number % camera.width
        down = camera.fy * turned[:, 1] + camera.cy - number // camera.width
        assert np.abs(across).max() <= 0.501
        assert np.abs(down).max() <= 0.501


def test_normals_turn_with_the_camera() -> None:
    found = [
        drawn(camera, crop, plane(camera)) for camera, crop in zip(CAMERAS, CROPS, strict=True)
    ]
    batch = gather(found, STAGE, TASKS, [], taught=False).ready(CPU)
    for k, one in enumerate(found):
        cos, sin = math.cos(one.crop.roll_rad), math.sin(one.crop.roll_rad)
        x, y, z = -PLANE / np.linalg.norm(PLANE)
        hand = -1 if one.crop.mirror else 1
        wanted = np.array([hand * (cos * x + sin * y), -sin * x + cos * y, z])
        normals = batch.targets["normals"][k].numpy()
        known = np.isfinite(normals[..., 0])
        assert known.mean() > 0.6
        assert np.abs(normals[known] - wanted).max() < 2e-3
        shade = batch.targets["reshading"][k].numpy()
        np.testing.assert_array_equal(np.isfinite(shade), known)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(write_corpus(tmp_path_factory.mktemp("data") / "rooms", frames=16, labels=True))


def config(**augment: float) -> TrainingConfig:
    network = {"family": "mult", "variant": "lite0", "tasks": list(TASKS), "classes": 2}
    return replace(CONFIG, network=network, augment=AugmentConfig(**augment))


def both(corpus: Corpus, config: TrainingConfig, size: int = 16) -> tuple[Batch, Batch]:
    batches = Batches(corpus, config)
    stage = StageConfig(1.0, 64, 48, size)
    made = batches.views.batch(0, stage, size), batches.views.sources(0, stage, size).ready(CPU)
    batches.close()
    return made


def test_the_device_makes_what_the_loader_makes(corpus: Corpus) -> None:
    # Noise has other numbers and JPEG other arithmetic: each is tested by itself.
    wanted, got = both(corpus, config(noise_p=0.0, jpeg_p=0.0))
    assert got.keys == wanted.keys
    assert torch.equal(got.focal_px, wanted.focal_px)
    assert (got.depth_m != wanted.depth_m).float().mean() < 2e-3
    difference = (got.rgb_nhwc.float() - wanted.rgb_nhwc.float()).abs()
    assert difference.mean() < 0.5
    assert (difference > 2).float().mean() < 5e-3
    assert got.targets.keys() == wanted.targets.keys() == {*TASKS} - {"depth"}
    for task, expected in wanted.targets.items():
        found = got.targets[task]
        assert found.dtype == expected.dtype
        if task == "segmentation":
            assert (found != expected).float().mean() < 2e-3
            continue
        assert (found.isfinite() != expected.isfinite()).float().mean() < 2e-3
        # Second derivatives of rounded levels are a keypoint's.
        assert (found - expected).nan_to_num().abs().mean() < 5e-3, task


def test_centres_of_things_are_the_loader_s_own(tmp_path: Path) -> None:
    things = Corpus(write_things(tmp_path / "boxes"))
    network = {"family": "panoptic", "variant": "lite0", "classes": 2, "stuff": [0]}
    wanted, got = both(things, replace(config(noise_p=0.0, jpeg_p=0.0), network=network), size=8)
    centres = wanted.targets["instances"]
    assert centres[..., 1].isfinite().any()
    torch.testing.assert_close(got.targets["instances"], centres, equal_nan=True)


def test_a_view_is_the_same_in_every_batch(corpus: Corpus) -> None:
    stage = StageConfig(1.0, 64, 48, 8)
    views = Batches(corpus, config()).views
    whole = views.sources(0, stage, 8).ready(CPU)
    parts = [views.sources(start, stage, 4).ready(CPU) for start in (0, 4)]
    joined = torch.cat([part.rgb_nhwc for part in parts]).int()
    assert (joined - whole.rgb_nhwc.int()).abs().max() <= 1
    assert torch.equal(torch.cat([part.depth_m for part in parts]), whole.depth_m)


def test_nothing_is_left_on_the_wrong_device(corpus: Corpus) -> None:
    """Tensors without values: an operation that mixes them with a CPU's raises."""
    stage = StageConfig(1.0, 64, 48, 16)
    sources = Batches(corpus, config()).views.sources(0, stage, 16)
    batch = sources.ready(torch.device("meta"))
    assert batch.rgb_nhwc.shape == (16, 48, 64, 3)
    assert {each.device.type for each in (batch.depth_m, *batch.targets.values())} == {"meta"}


class Crossings(TorchFunctionMode):
    """Counts numbers of Python that become tensors, and tensors that change their device."""

    count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        is_moved = func is torch.Tensor.to and result.device != args[0].device
        self.count += is_moved or func in (torch.tensor, torch.as_tensor, torch.from_numpy)
        return result


def test_nothing_but_the_batch_is_handed_over(corpus: Corpus) -> None:
    """Constants are there from the first batch on: to put them on a GPU makes the host wait."""
    stage = StageConfig(1.0, 64, 48, 16)
    sources = Batches(corpus, config()).views.sources(0, stage, 16)
    given = len(sources.tensors) + len(sources.changes)
    for _ in range(2):
        with Crossings() as crossings:
            sources.ready(torch.device("meta")).image_nchw((0.4,) * 3, (0.6,) * 3)
    assert crossings.count == given


def test_jpeg_does_what_a_codec_does() -> None:
    rng = np.random.default_rng(2)
    photos = [
        cv2.GaussianBlur(rng.integers(0, 256, (56, 72, 3), dtype=np.uint8), (0, 0), sigma)
        for sigma in (1.0, 2.0, 4.0)
    ]
    look = replace(draw_appearance(STILL, 72, 56, rng), colours=np.eye(3))
    for quality in (25, 60, 90):
        wanted = np.stack([photometry.jpeg(photo, quality) for photo in photos]).astype(float)
        before = np.stack(photos).astype(float)
        changes = device_photometry.pack([replace(look, jpeg_quality=quality)] * 3, 72, 56)
        changes = {k: v for k, v in changes.items() if not k.startswith(("tone", "colours"))}
        nchw = torch.from_numpy(before).permute(0, 3, 1, 2).float()
        got = device_photometry.apply(nchw, changes).permute(0, 2, 3, 1).numpy()
        # Far closer to the codec's picture than that is to the original.
        assert np.abs(got - wanted).mean() < 0.4 * np.abs(wanted - before).mean()


def test_noise_is_normal_and_of_its_seed_alone() -> None:
    seeds = torch.tensor([3141592653589793238, 2718281828459045235])
    normal = device_photometry.normals(seeds, 200_000).double()
    assert torch.equal(device_photometry.normals(seeds[1:], 200_000), normal[1:].float())
    assert normal.mean(1).abs().max() < 0.01
    assert (normal.std(1) - 1).abs().max() < 0.01
    assert ((normal**4).mean(1) - 3).abs().max() < 0.06
    assert abs(float((normal[0] * normal[1]).mean())) < 0.01
    inside = (normal.abs() < 1).double().mean(1)
    assert (inside - math.erf(math.sqrt(0.5))).abs().max() < 0.005


def test_the_device_s_noise_has_the_loader_s_strength(corpus: Corpus) -> None:
    flat = np.full((48, 64, 3), 100, np.uint8)
    rng = np.random.default_rng(4)
    base = draw_appearance(STILL, 64, 48, rng)
    looks = [
        replace(draw_appearance(replace(STILL, noise_p=1.0), 64, 48, rng), tone=base.tone)
        for _ in range(8)
    ]
    changes = device_photometry.pack(looks, 64, 48)
    kept = {k: v for k, v in changes.items() if k.startswith("noise")}
    nchw = torch.full((8, 3, 48, 64), 100.0)
    got = device_photometry.apply(nchw, kept)
    for k, look in enumerate(looks):
        assert look.noise is not None
        wanted = photometry.sensor_noise(flat, look.noise).astype(float)
        assert float(got[k].std()) == pytest.approx(wanted.std(), rel=0.05)
        channels = got[k].flatten(1)
        assert torch.equal(channels[0], channels[1]) == (look.noise.channels == 1)


def test_a_batch_of_sources_is_small(corpus: Corpus) -> None:
    """What goes to the device: frames and a few numbers, no maps of gains or noise."""
    stage = StageConfig(1.0, 256, 192, 16)
    sources = Batches(corpus, config()).views.sources(0, stage, 16)
    drawn_bytes = sum(t.numel() * t.element_size() for t in sources.changes.values())
    assert drawn_bytes < 0.1 * 16 * 256 * 192 * 3
