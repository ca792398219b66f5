"""Outdoor data sets: KITTI (Eigen's split), ETH3D, Cityscapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.json_text import parse_json
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.storage import require_regular_file
from dense_perception.data.folder_pairs import position_and_quaternion
from dense_perception.data.sample import Sample
from dense_perception.data.sets.files import (
    FileSet,
    key_of,
    looked_up,
    make_sample,
    read_depth,
    read_labels,
)
from dense_perception.imaging.transforms import Transform

_KITTI_UNIT_M = 1 / 256
# The 19 classes that count, by their place among Cityscapes' 34 numbers.
_CITYSCAPES_IDS = (
    7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
)  # fmt: skip
_CITYSCAPES_TABLE = {
    **dict.fromkeys(range(34), 0),
    **{number: label for label, number in enumerate(_CITYSCAPES_IDS, 1)},
    255: 0,
}


class KittiEigen(FileSet):
    """KITTI raw with the depth of the depth prediction benchmark (16 bit, 1/256 m).

    Drives ``2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png`` with
    ``2011_09_26/calib_cam_to_cam.txt``, and depth in ``DRIVE/proj_depth/groundtruth/image_02``
    below ``train/``, ``val/`` or beside the days. ``eigen_test_files_with_gt.txt`` (image, depth,
    focal length a line) chooses frames where it is there.
    """

    name = "kitti"

    def __init__(self, root: Path) -> None:
        chosen = root / "eigen_test_files_with_gt.txt"
        colours = sorted(root.glob("*/*_sync/image_0[23]/data/*.png"))
        if chosen.is_file():
            lines = [line.split() for line in chosen.read_text(encoding="utf-8").splitlines()]
            colours = [root / words[0] for words in lines if len(words) > 1 and words[1] != "None"]
        entries: dict[str, tuple[Path, ...]] = {}
        for colour in colours:
            camera, drive = colour.parents[1].name, colour.parents[2]
            inside = Path(drive.name, "proj_depth", "groundtruth", camera, colour.name)
            places = [root / part / inside for part in ("train", "val", "")]
            depth = next((place for place in places if place.is_file()), None)
            if depth is not None:
                key = key_of(f"{drive.name}_{camera}_{colour.stem}")
                entries[key] = (colour, depth)
        super().__init__(root, entries, "DAY/DRIVE_sync/image_02/data/*.png and their groundtruth")
        self._cameras: dict[tuple[Path, str], Intrinsics] = {}

    def read(self, key: str, *paths: Path) -> Sample:
        colour = paths[0]
        name, drive = colour.parents[1].name, colour.parents[2]
        path = drive.parent / "calib_cam_to_cam.txt"
        if (path, name) not in self._cameras:
            self._cameras[path, name] = _kitti_camera(path, name.removeprefix("image_"))
        depth_m = read_depth(paths[1], _KITTI_UNIT_M)
        height, width = depth_m.shape
        camera = self._cameras[path, name].resized(width, height)
        return make_sample(key, colour, depth_m, camera=camera, recording=drive.name)


class Eth3d(FileSet):
    """ETH3D, distorted images: ``SCENE/images/dslr_images/NAME.JPG``, depth as raw float32 in
    ``SCENE/ground_truth_depth/dslr_images/NAME.JPG``, ``SCENE/dslr_calibration_jpg/cameras.txt``
    and ``images.txt``. The lens is not taken out: intrinsics are the pinhole part.
    """

    name = "eth3d"

    def __init__(self, root: Path) -> None:
        entries: dict[str, tuple[Path, ...]] = {}
        self._views: dict[str, tuple[Intrinsics, np.ndarray]] = {}
        for depth in sorted(root.glob("*/ground_truth_depth/dslr_images/*")):
            scene = depth.parents[2]
            colour = scene / "images" / "dslr_images" / depth.name
            if colour.is_file():
                entries[key_of(f"{scene.name}_{depth.stem}")] = (colour, depth, scene)
        super().__init__(root, entries, "SCENE/ground_truth_depth/dslr_images/NAME.JPG")
        for scene in dict.fromkeys(paths[2] for paths in entries.values()):
            self._views.update(_eth3d_views(scene))

    def read(self, key: str, *paths: Path) -> Sample:
        if key not in self._views:
            raise InputError(f"{paths[2]}/dslr_calibration_jpg/images.txt does not name {paths[0]}")
        camera, camera_7 = self._views[key]
        require_regular_file(paths[1])
        depth = np.fromfile(paths[1], "<f4")
        if depth.size != camera.width * camera.height:
            raise InputError(
                f"{paths[1]} holds {depth.size} numbers, expected {camera.width}x{camera.height}"
            )
        depth_m = np.where(np.isfinite(depth), depth, 0).reshape(camera.height, camera.width)
        return make_sample(
            key, paths[0], depth_m, camera=camera, camera_7=camera_7, recording=paths[2].name
        )


class Cityscapes(FileSet):
    """Cityscapes: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` with ``gtFine`` label ids or train
    ids; where they are there, ``disparity`` and ``camera`` give metric depth.
    """

    name = "cityscapes"
    classes = LABEL_SETS["cityscapes"].labels

    def __init__(self, root: Path, split: str = "val") -> None:
        entries: dict[str, tuple[Path, ...]] = {}
        for colour in sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
            stem, city = colour.name.removesuffix("_leftImg8bit.png"), colour.parent.name
            folder = root / "gtFine" / split / city
            by_id = folder / f"{stem}_gtFine_labelIds.png"
            labels = by_id if by_id.is_file() else folder / f"{stem}_gtFine_labelTrainIds.png"
            entries[key_of(stem)] = (
                colour,
                labels,
                root / "disparity" / split / city / f"{stem}_disparity.png",
                root / "camera" / split / city / f"{stem}_camera.json",
            )
        super().__init__(root, entries, f"leftImg8bit/{split}/CITY/*_leftImg8bit.png")

    def read(self, key: str, *paths: Path) -> Sample:
        colour, labels, disparity, camera_file = paths
        stored = read_labels(labels)
        if labels.name.endswith("TrainIds.png"):
            table = {**{label: label + 1 for label in range(19)}, 255: 0}
        else:
            table = _CITYSCAPES_TABLE
        labels_hw = looked_up(stored, table, labels)
        height, width = labels_hw.shape
        depth_m = camera = None
        if camera_file.is_file():
            try:
                data = parse_json(camera_file.read_text(encoding="utf-8"))
                fx, fy, cx, cy = (float(data["intrinsic"][k]) for k in ("fx", "fy", "u0", "v0"))
                baseline_m = float(data["extrinsic"]["baseline"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"cannot read {camera_file}: {error!r}") from error
            camera = Intrinsics(width, height, fx, fy, cx, cy)
            if disparity.is_file():
                # 0 is none; else (value - 1) / 256 pixels.
                pixels = (read_labels(disparity) - 1).astype(np.float32) / 256
                with np.errstate(divide="ignore"):
                    metres = np.float32(baseline_m * fx) / pixels
                depth_m = np.where(pixels > 0, metres, 0).astype(np.float32)
        return make_sample(key, colour, depth_m, labels_hw, camera, recording=colour.parent.name)


def _kitti_camera(path: Path, number: str) -> Intrinsics:
    require_regular_file(path)
    lines = dict(
        line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line
    )
    try:
        width, height = (round(float(each)) for each in lines[f"S_rect_{number}"].split())
        return Intrinsics.from_matrix(
            width, height, [float(each) for each in lines[f"P_rect_{number}"].split()]
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} has no usable P_rect_{number}: {error}") from error


def _eth3d_views(scene: Path) -> dict[str, tuple[Intrinsics, np.ndarray]]:
    """Camera and pose (in the world) of each image, by key, from COLMAP's text files."""
    folder = scene / "dslr_calibration_jpg"
    cameras: dict[str, Intrinsics] = {}
    views: dict[str, tuple[Intrinsics, np.ndarray]] = {}
    try:
        for words in _words(folder / "cameras.txt"):
            fx, fy, cx, cy = map(float, words[4:8])
            # COLMAP's pixels begin at their corner.
            size = int(words[2]), int(words[3])
            cameras[words[0]] = Intrinsics(*size, fx, fy, cx - 0.5, cy - 0.5)
        for words in _words(folder / "images.txt"):
            if len(words) != 10 or "." not in words[9]:
                continue  # the points of an image have a line of their own
            w, x, y, z, *shift = map(float, words[1:8])
            to_camera = Transform.from_quaternion((x, y, z, w), tuple(shift))
            matrix = np.eye(4)
            world = to_camera.inverse()
            matrix[:3, :3], matrix[:3, 3] = world.rotation, world.translation
            key = key_of(f"{scene.name}_{Path(words[9]).stem}")
            views[key] = (cameras[words[8]], position_and_quaternion(matrix))
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"cannot read the calibration in {folder}: {error!r}") from error
    return views


def _words(path: Path) -> list[list[str]]:
    require_regular_file(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]
