"""Public data sets: each reader on a miniature in the layout in which the set is published."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dense_perception.cli import main
from dense_perception.core.errors import InputError
from dense_perception.data.corpus import Corpus, Mixture
from dense_perception.data.sample import NamedFrames, Sample
from dense_perception.data.sources import SETS, open_frames, problems_of
from dense_perception.imaging.transforms import Transform

H, W = 12, 16
RED = np.full((H, W, 3), (0, 0, 200), np.uint8)  # BGR, as OpenCV writes it
DEPTH = np.arange(1, H * W + 1, dtype=np.uint16).reshape(H, W)


def put(path: Path, content: np.ndarray | str | object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        cv2.imwrite(str(path), content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


def nyu(root: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    path = root / "nyu_depth_v2_labeled.mat"
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        images = np.zeros((2, 3, W, H), np.uint8)
        images[:, 0] = 200
        file["images"] = images
        file["depths"] = np.stack([DEPTH.T / 100] * 2).astype(np.float32)
        labels = np.zeros((2, W, H), np.uint16)
        labels[:, 8:] = 2
        file["labels"] = labels
        for group, texts in (("names", ["book", "wall"]), ("scenes", ["kitchen_0004", "office_1"])):
            references = []
            for k, text in enumerate(texts):
                codes = np.array([[ord(letter)] for letter in text], np.uint16)
                references.append(file.create_dataset(f"#refs#/{group}{k}", data=codes).ref)
            file.create_dataset(group, data=np.array([references], h5py.ref_dtype))
    return path


def kitti(root: Path) -> Path:
    day, drive = "2011_09_26", "2011_09_26_drive_0002_sync"
    put(root / day / "calib_cam_to_cam.txt", (
        "calib_time: 09-Jan-2012 13:57:47\n"
        "S_rect_02: 1.600000e+01 1.200000e+01\n"
        "P_rect_02: 7.2e+01 0.0 8.5 4.4e+01 0.0 7.1e+01 6.25 2.1e-01 0.0 0.0 1.0 2.7e-03\n"
    ))  # fmt: skip
    put(root / day / drive / "image_02" / "data" / "0000000069.png", RED)
    put(root / day / drive / "image_02" / "data" / "0000000070.png", RED)
    truth = DEPTH * 100
    truth[0, 0] = 0
    put(root / "val" / drive / "proj_depth/groundtruth/image_02/0000000069.png", truth)
    return root


def eth3d(root: Path) -> Path:
    scene = root / "courtyard"
    put(scene / "images/dslr_images/DSC_0286.JPG", RED)
    depth = DEPTH.astype("<f4") / 10
    depth[0, 0] = np.inf
    path = scene / "ground_truth_depth/dslr_images/DSC_0286.JPG"
    path.parent.mkdir(parents=True)
    depth.tofile(path)
    folder = scene / "dslr_calibration_jpg"
    put(
        folder / "cameras.txt",
        "# Camera list\n0 THIN_PRISM_FISHEYE 16 12 34 35 8 6 .1 0 0 0 0 0 0 0\n",
    )
    # Half a turn about x, 2 m forward in the camera.
    put(folder / "images.txt", (
        "# Image list\n3 0 1 0 0 0 0 2 0 dslr_images/DSC_0286.JPG\n10.5 11.5 7 1 2 3\n"
    ))  # fmt: skip
    return root


def tum(root: Path) -> Path:
    root = root / "rgbd_dataset_freiburg1_desk"
    put(root / "rgb/1305031452.791720.png", RED)
    put(root / "depth/1305031452.800.png", DEPTH * 50)
    put(root / "rgb.txt", "# color images\n1305031452.791720 rgb/1305031452.791720.png\n"
        "1305031453.9 rgb/1305031453.9.png\n")  # fmt: skip
    put(root / "depth.txt", "# depth maps\n1305031452.800 depth/1305031452.800.png\n")
    put(root / "groundtruth.txt", "# t x y z q\n1305031452.79 1 2 3 0 0 0 1\n")
    return root


def ade20k(root: Path) -> Path:
    put(root / "images/validation/ADE_val_00000001.jpg", RED)
    put(root / "annotations/validation/ADE_val_00000001.png", stripes(0, 1, 150))
    return root


def pascal_context(root: Path) -> Path:
    folder = root / "VOCdevkit/VOC2010"
    put(folder / "JPEGImages/2008_000002.jpg", RED)
    put(folder / "SegmentationClassContext/2008_000002.png", stripes(255, 0, 59))
    put(folder / "ImageSets/SegmentationContext/val.txt", "2008_000002\n")
    return root


def cityscapes(root: Path) -> Path:
    stem = "frankfurt_000000_000294"
    put(root / f"leftImg8bit/val/frankfurt/{stem}_leftImg8bit.png", RED)
    put(root / f"gtFine/val/frankfurt/{stem}_gtFine_labelIds.png", stripes(3, 7, 33))
    disparity = np.full((H, W), 257, np.uint16)
    disparity[0, 0] = 0
    put(root / f"disparity/val/frankfurt/{stem}_disparity.png", disparity)
    camera = {"intrinsic": {"fx": 20.0, "fy": 21.0, "u0": 8.0, "v0": 6.0},
              "extrinsic": {"baseline": 0.2}}  # fmt: skip
    put(root / f"camera/val/frankfurt/{stem}_camera.json", camera)
    return root


def coco_stuff(root: Path) -> Path:
    put(root / "val2017/000000000139.jpg", RED)
    put(root / "stuffthingmaps/val2017/000000000139.png", stripes(255, 0, 181))
    things = {"categories": [{"id": 1, "name": "person"}]}
    put(root / "annotations/instances_val2017.json", things)
    put(root / "annotations/stuff_val2017.json", {"categories": [{"id": 182, "name": "wood"}]})
    return root


def coco_panoptic(root: Path) -> Path:
    put(root / "val2017/000000000139.jpg", RED)
    numbers = stripes(0, 1, 2).astype(int)
    values = np.array([0, 300, 65536 * 2 + 7])[numbers]
    bgr = np.stack([values // 65536, values // 256 % 256, values % 256], axis=-1)
    put(root / "annotations/panoptic_val2017/000000000139.png", bgr.astype(np.uint8))
    person = {"id": 65536 * 2 + 7, "category_id": 1}
    segments = [{"id": 5, "category_id": 77}, person, {**person, "category_id": 200}]
    segments.append({"id": 300, "category_id": 200})
    put(root / "annotations/panoptic_val2017.json", {
        "categories": [{"id": 200, "name": "rug-merged"},
                       {"id": 1, "name": "person", "isthing": 1}],
        "annotations": [{"file_name": "000000000139.png", "segments_info": segments}],
    })  # fmt: skip
    return root


def taskonomy(root: Path) -> Path:
    stem = "point_0_view_3_domain"
    put(root / f"rgb/office_0/{stem}_rgb.png", RED)
    depth = DEPTH.copy()
    depth[0, 0] = 65535
    put(root / f"depth_zbuffer/office_0/{stem}_depth_zbuffer.png", depth)
    info = {"field_of_view_rads": math.pi / 2}
    put(root / f"point_info/office_0/{stem}_point_info.json", info)
    return root


def taskonomy_by_building(root: Path) -> Path:
    taskonomy(root)
    for task in ("rgb", "depth_zbuffer", "point_info"):
        (root / "office_0").mkdir(exist_ok=True)
        (root / task / "office_0").rename(root / "office_0" / task)
        (root / task).rmdir()
    return root


def replica(root: Path) -> Path:
    camera = {"camera": {"w": W, "h": H, "fx": 20, "fy": 20, "cx": 7.5, "cy": 5.5, "scale": 6553.5}}
    put(root / "cam_params.json", camera)
    put(root / "room0/results/frame000000.jpg", RED)
    put(root / "room0/results/depth000000.png", DEPTH)
    put(root / "room0/traj.txt", "1 0 0 1 0 1 0 2 0 0 1 3 0 0 0 1\n")
    return root


def cocodoom(root: Path) -> Path:
    put(root / "run1/map01/rgb/000123.png", RED)
    put(root / "run1/map01/depth/000123.png", (DEPTH % 250).astype(np.uint8))
    return root


def stripes(*values: int) -> np.ndarray:
    """Rows of equal height, one for each label."""
    return np.repeat(np.array(values, np.uint8), H // len(values))[:, None].repeat(W, axis=1)


def rows(sample: Sample) -> list[int]:
    assert sample.labels_hw is not None
    assert sample.labels_hw.dtype == np.uint8
    return list(dict.fromkeys(sample.labels_hw[:, 0].tolist()))


def check_nyu(frames: NamedFrames, sample: Sample) -> None:
    assert frames.classes == ("book", "wall")
    np.testing.assert_allclose(sample.depth_m, DEPTH / 100, rtol=1e-6)
    assert sample.labels_hw is not None
    assert (sample.labels_hw == np.where(np.arange(W) < 8, 0, 2)).all()
    assert sample.recording == "kitchen_0004"
    assert sample.intrinsics.fx == pytest.approx(518.857901 * W / 640)


def check_kitti(frames: NamedFrames, sample: Sample) -> None:
    assert len(frames) == 1, "a picture without truth is left out"
    expected = DEPTH * 100 / 256
    expected[0, 0] = 0
    np.testing.assert_allclose(sample.depth_m, expected, rtol=1e-6)
    camera = sample.intrinsics
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (72, 71, 8.5, 6.25)
    assert sample.recording == "2011_09_26_drive_0002_sync"


def check_eth3d(frames: NamedFrames, sample: Sample) -> None:
    assert sample.depth_m[0, 0] == 0
    np.testing.assert_allclose(sample.depth_m[1:], DEPTH[1:] / 10, rtol=1e-6)
    assert (sample.intrinsics.cx, sample.intrinsics.cy) == (7.5, 5.5)
    assert sample.camera_7 is not None
    # R^T (p - t): half a turn about x takes (0, 0, -2) to (0, 0, 2).
    np.testing.assert_allclose(sample.camera_7[:3], [0, 0, 2], atol=1e-6)
    np.testing.assert_allclose(np.abs(sample.camera_7[3:]), [1, 0, 0, 0], atol=1e-6)


def check_tum(frames: NamedFrames, sample: Sample) -> None:
    assert len(frames) == 1, "without depth within 0.02 s there is no frame"
    np.testing.assert_allclose(sample.depth_m, DEPTH / 100, rtol=1e-6)
    assert sample.intrinsics.fx == pytest.approx(517.3 * W / 640)
    assert sample.stamp_ns == pytest.approx(1305031452791720000, abs=1000)
    assert sample.camera_7 is not None
    assert sample.camera_7.tolist() == [1, 2, 3, 0, 0, 0, 1]


def check_ade20k(frames: NamedFrames, sample: Sample) -> None:
    assert (frames.classes[0], len(frames.classes)) == ("wall", 150)
    assert rows(sample) == [0, 1, 150]
    assert sample.jpeg is not None


def check_pascal_context(frames: NamedFrames, sample: Sample) -> None:
    assert (frames.classes[0], frames.classes[59]) == ("background", "wood")
    assert rows(sample) == [0, 1, 60]


def check_cityscapes(frames: NamedFrames, sample: Sample) -> None:
    assert frames.classes[0] == "road"
    assert rows(sample) == [0, 1, 19]
    assert sample.depth_m[0, 0] == 0
    np.testing.assert_allclose(sample.depth_m[1:], 0.2 * 20, rtol=1e-6)


def check_coco_stuff(frames: NamedFrames, sample: Sample) -> None:
    assert (frames.classes[0], frames.classes[181]) == ("person", "wood")
    assert rows(sample) == [0, 1, 182]


def check_coco_panoptic(frames: NamedFrames, sample: Sample) -> None:
    assert frames.classes == ("person", "rug-merged")
    assert rows(sample) == [0, 2, 1]
    assert sample.instances_hw is not None
    assert sorted(set(sample.instances_hw.ravel().tolist())) == [0, 1]
    assert sample.instance_labels == {1: 1}
    unknown, twice = problems_of(frames)
    assert "segment 131079 of 000000000139.png is listed twice: the first counts" in twice
    assert "segment 5 of 000000000139.png has the unknown category 77: it is void" in unknown


def check_taskonomy(frames: NamedFrames, sample: Sample) -> None:
    assert sample.depth_m[0, 0] == 0
    np.testing.assert_allclose(sample.depth_m[1:], DEPTH[1:] / 512, rtol=1e-6)
    assert sample.intrinsics.fx == pytest.approx(W / 2)
    assert sample.recording == "office_0"


def check_replica(frames: NamedFrames, sample: Sample) -> None:
    np.testing.assert_allclose(sample.depth_m, DEPTH / 6553.5, rtol=1e-6)
    assert sample.camera_7 is not None
    assert sample.camera_7.tolist() == [1, 2, 3, 0, 0, 0, 1]


def check_cocodoom(frames: NamedFrames, sample: Sample) -> None:
    np.testing.assert_allclose(sample.depth_m, DEPTH % 250 * 0.22, rtol=1e-6)
    assert sample.intrinsics.fy == pytest.approx(1.2 * W / 2)
    assert sample.recording == "run1_map01"


MINIATURES: dict[str, tuple[str, Callable[[Path], Path], Any]] = {
    "nyu": ("nyu", nyu, check_nyu),
    "kitti": ("kitti", kitti, check_kitti),
    "eth3d": ("eth3d", eth3d, check_eth3d),
    "tum": ("tum", tum, check_tum),
    "ade20k": ("ade20k", ade20k, check_ade20k),
    "pascal_context": ("pascal_context", pascal_context, check_pascal_context),
    "cityscapes": ("cityscapes", cityscapes, check_cityscapes),
    "coco_stuff": ("coco_stuff", coco_stuff, check_coco_stuff),
    "coco_panoptic": ("coco_panoptic", coco_panoptic, check_coco_panoptic),
    "taskonomy": ("taskonomy", taskonomy, check_taskonomy),
    "taskonomy by building": ("taskonomy", taskonomy_by_building, check_taskonomy),
    "replica": ("replica", replica, check_replica),
    "cocodoom": ("cocodoom", cocodoom, check_cocodoom),
}


@pytest.mark.parametrize("which", MINIATURES)
def test_a_set_in_its_own_layout_becomes_a_corpus(which: str, tmp_path: Path) -> None:
    kind, write, check = MINIATURES[which]
    source = f"{kind}:{write(tmp_path / 'set')}"
    frames = open_frames(source)
    sample = frames[0]
    assert sample.rgb_hwc.shape == (H, W, 3)
    red, green, blue = sample.rgb_hwc.reshape(-1, 3).mean(axis=0)
    assert red > 150 > 20 > max(green, blue)
    check(frames, sample)
    assert frames.frame(frames.keys[0]).key == frames.keys[0]
    assert main(["data", "convert", source, "--out", str(tmp_path / "c"), "--licence", "own"]) == 0
    corpus = Corpus(tmp_path / "c")
    assert tuple(corpus.keys) == tuple(frames.keys)
    assert corpus.classes == tuple(frames.classes)
    stored = corpus[0]
    np.testing.assert_allclose(stored.depth_m, sample.depth_m, atol=0.0011)
    if sample.labels_hw is not None:
        np.testing.assert_array_equal(stored.labels_hw, sample.labels_hw)


@pytest.mark.parametrize("which", ["nyu", "tum", "coco_panoptic"])
def test_worker_processes_and_mixtures_take_a_set(which: str, tmp_path: Path) -> None:
    kind, write, _ = MINIATURES[which]
    frames = open_frames(f"{kind}:{write(tmp_path)}")
    mixture = Mixture([pickle.loads(pickle.dumps(frames))])
    np.testing.assert_array_equal(mixture[0].rgb_hwc, frames[0].rgb_hwc)
    assert mixture.describe() == [{"name": frames.name, "frames": len(frames)}]


def test_splits_of_nyu(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    path = nyu(tmp_path)
    io.savemat(tmp_path / "splits.mat", {"trainNdxs": [[1]], "testNdxs": [[2]]})
    assert open_frames(f"nyu_test:{path}").keys == ("nyu_0001",)
    assert open_frames(f"nyu_train:{path}").keys == ("nyu_0000",)


def test_the_eigen_list_chooses_frames(tmp_path: Path) -> None:
    root = kitti(tmp_path)
    drive = "2011_09_26/2011_09_26_drive_0002_sync"
    line = f"{drive}/image_02/data/0000000069.png {drive}/x.png 721.5\n"
    without = f"{drive}/image_02/data/0000000070.png None 721.5\n"
    put(root / "eigen_test_files_with_gt.txt", line + without)
    assert len(open_frames(f"kitti:{root}")) == 1


def test_pixelmaps_of_the_stuff_task(tmp_path: Path) -> None:
    put(tmp_path / "val2017/1.jpg", RED)
    put(tmp_path / "annotations/stuff_val2017_pixelmaps/1.png", stripes(0, 92, 183))
    names = [{"id": 92, "name": "banner"}, {"id": 183, "name": "other"}]
    put(tmp_path / "annotations/stuff_val2017.json", {"categories": names})
    frames = open_frames(f"coco_stuff:{tmp_path}")
    assert frames.classes == ("banner", "other")
    assert rows(frames[0]) == [0, 1, 2]


def unknown_label(root: Path) -> str:
    put(ade20k(root) / "annotations/validation/ADE_val_00000001.png", stripes(0, 1, 151))
    return f"ade20k:{root}"


def other_size(root: Path) -> str:
    put(ade20k(root) / "images/validation/ADE_val_00000001.jpg", RED[:6])
    return f"ade20k:{root}"


def eight_bits(root: Path) -> str:
    put(replica(root) / "room0/results/depth000000.png", stripes(1, 2))
    return f"replica:{root}"


def cut_short(root: Path) -> str:
    path = eth3d(root) / "courtyard/ground_truth_depth/dslr_images/DSC_0286.JPG"
    path.write_bytes(path.read_bytes()[:100])
    return f"eth3d:{root}"


def no_calibration(root: Path) -> str:
    (kitti(root) / "2011_09_26/calib_cam_to_cam.txt").write_text("S_rect_02: 16 12\n")
    return f"kitti:{root}"


def unknown_segment(root: Path) -> str:
    path = coco_panoptic(root) / "annotations/panoptic_val2017.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["segments_info"].pop()
    put(path, data)
    return f"coco_panoptic:{root}"


def groups_in_hdf5(root: Path) -> str:
    h5py = pytest.importorskip("h5py")
    with h5py.File(root / "nyu.mat", "w") as file:
        for name in ("images", "depths", "labels", "names"):
            file.create_group(name)
    return f"nyu:{root / 'nyu.mat'}"


def links_in_a_circle(root: Path) -> str:
    h5py = pytest.importorskip("h5py")
    with h5py.File(root / "nyu.mat", "w") as file:
        file["images"] = h5py.SoftLink("/images")
    return f"nyu:{root / 'nyu.mat'}"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (groups_in_hdf5, "is not the labelled part of NYU Depth v2"),
        (links_in_a_circle, "is not the labelled part of NYU Depth v2"),
        (unknown_label, r"has the labels \[151\], which are none of its data set's"),
        (other_size, "has 16x6 pixels, its label image 16x12"),
        (eight_bits, "depth000000.png is uint8 .* expected depth of 16 bits"),
        (cut_short, "holds 25 numbers, expected 16x12"),
        (no_calibration, "has no usable P_rect_02"),
        (unknown_segment, "segments that the JSON does not name"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], str], says: str) -> None:
    source = damage(tmp_path)
    with pytest.raises(InputError, match=says):
        open_frames(source)[0]


@pytest.mark.parametrize("kind", [kind for kind in SETS if "nyu" not in kind])
def test_an_empty_folder_is_refused_with_what_was_expected(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected|cannot read"):
        open_frames(f"{kind}:{tmp_path}")
    with pytest.raises(InputError, match="there is no"):
        open_frames(f"{kind}:{tmp_path}/no")


def test_unknown_sets_are_listed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'kiti' is no data set, expected one of nyu"):
        open_frames("kiti:/data")


def test_a_transform_is_its_own_inverse_as_a_quaternion() -> None:
    """Used by every reader that gives poses."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        wanted = Transform.from_quaternion(tuple(rng.normal(size=4)), (1.0, 2.0, 3.0))
        again = Transform.from_quaternion(tuple(wanted.quaternion()), (1.0, 2.0, 3.0))
        np.testing.assert_allclose(again.rotation, wanted.rotation, atol=1e-12)
