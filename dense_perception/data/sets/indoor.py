"""Indoor data sets: NYU Depth v2, TUM RGB-D, Taskonomy, Replica, CocoDoom."""

from __future__ import annotations

import bisect
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.json_text import parse_json
from dense_perception.core.storage import require_regular_file
from dense_perception.data.files import read_image
from dense_perception.data.folder_pairs import position_and_quaternion
from dense_perception.data.sample import Sample
from dense_perception.data.sets.files import (
    FileSet,
    images_below,
    key_of,
    make_sample,
    read_depth,
)

if TYPE_CHECKING:
    import h5py

# Of the Kinect that recorded NYU Depth v2, from the data set's toolbox (which counts from 1).
_NYU_CAMERA = (518.857901, 519.469611, 324.582449, 252.736166)
_TUM_UNIT_M = 1 / 5000
_TUM_CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_TUM_CAMERA = (525.0, 525.0, 319.5, 239.5)
_TUM_TOLERANCE_S = 0.02
_TASKONOMY_UNIT_M = 1 / 512
_TASKONOMY_NONE = 65535
_MOST_NAMES = 255
# What h5py raises for files that are damaged or hold something else.
_HDF5_ERRORS = (
    *(OSError, KeyError, IndexError, TypeError, ValueError),
    *(RuntimeError, AttributeError, OverflowError),
)
# Of the engine that played CocoDoom: 90 degrees across at 4:3, pixels 1.2 times as high as wide.
_DOOM_HFOV_DEG = 90.0


class NyuDepth:
    """The labelled part of NYU Depth v2: ``nyu_depth_v2_labeled.mat`` (HDF5).

    Classes are those of ``names`` that occur most, up to 255; rarer ones are void. With
    ``splits.mat`` beside the file, ``split`` chooses ``train`` or ``test``; it needs SciPy.

    :raises InputError: if the file lacks an array, or the split is not there.
    """

    name = "nyu"

    def __init__(self, path: Path, split: str = "") -> None:
        import h5py

        if path.is_dir():
            path /= "nyu_depth_v2_labeled.mat"
        require_regular_file(path)
        self.path, self._name = path, split
        try:
            self._file: h5py.File = h5py.File(path, "r")
            count = len(self._file["images"])
            shapes = [self._file[each].shape for each in ("depths", "labels")]
            names = [self._text(reference) for reference in self._file["names"][0]]
        except _HDF5_ERRORS as error:
            raise InputError(
                f"{path} is not the labelled part of NYU Depth v2 (images, depths, labels, names): "
                f"{error}"
            ) from error
        if any(len(shape) != 3 or shape[0] != count for shape in shapes):
            raise InputError(f"{path} has {count} images, depths and labels of {shapes}")
        self._rows = self._split(split) if split else list(range(count))
        self.keys = tuple(f"nyu_{row:04d}" for row in self._rows)
        self._to_class = np.zeros(len(names) + 1, np.uint8)
        try:
            kept = names if len(names) <= _MOST_NAMES else self._most_common(names)
        except _HDF5_ERRORS as error:
            raise InputError(f"the labels of {path} cannot be read: {error}") from error
        self.classes = tuple(kept)
        for label, name in enumerate(kept, 1):
            self._to_class[names.index(name) + 1] = label

    def __len__(self) -> int:
        return len(self.keys)

    def __reduce__(self) -> tuple[type[NyuDepth], tuple[Path, str]]:
        """Another process opens the file itself."""
        return NyuDepth, (self.path, self._name)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        row = self._rows[index]
        try:
            # MATLAB's arrays come with their axes in reverse.
            images = np.asarray(self._file["images"][row], np.uint8)
            rgb_hwc = np.ascontiguousarray(images.transpose(2, 1, 0))
            depth_m = np.ascontiguousarray(np.asarray(self._file["depths"][row], np.float32).T)
            labels_hw = self._to_class[np.asarray(self._file["labels"][row]).T]
            scenes = self._file.get("scenes")
            recording = "" if scenes is None else self._text(scenes[0][row])
        except _HDF5_ERRORS as error:
            raise InputError(f"frame {row} of {self.path} cannot be read: {error}") from error
        height, width = depth_m.shape
        full = Intrinsics(640, 480, *_NYU_CAMERA)
        return Sample(
            rgb_hwc,
            np.nan_to_num(depth_m, nan=0, posinf=0, neginf=0),
            full if (width, height) == (640, 480) else full.resized(width, height),
            np.ascontiguousarray(labels_hw),
            key=self.keys[index],
            recording=recording,
        )

    def frame(self, key: str) -> Sample:
        """The frame of that key.

        :raises KeyError: if there is none.
        """
        if key not in self.keys:
            raise KeyError(key)
        return self[self.keys.index(key)]

    def _text(self, reference: object) -> str:
        return "".join(map(chr, np.asarray(self._file[reference]).reshape(-1).tolist()))

    def _most_common(self, names: list[str]) -> list[str]:
        counts = np.zeros(len(names) + 1, np.int64)
        for row in range(0, len(self._file["labels"]), 8):  # rank by every eighth frame
            counts += np.bincount(
                np.asarray(self._file["labels"][row]).reshape(-1), minlength=len(counts)
            )
        order = np.argsort(-counts[1:], kind="stable")[:_MOST_NAMES]
        return [names[k] for k in sorted(order.tolist())]

    def _split(self, split: str) -> list[int]:
        from scipy.io import loadmat

        path = self.path.with_name("splits.mat")
        require_regular_file(path)
        try:
            found = loadmat(path).get(f"{split}Ndxs")
        except Exception as error:  # a reader of many formats, whose failures have no common base
            raise InputError(f"{path} is no MATLAB file that can be read: {error}") from error
        if found is None:
            raise InputError(f"{path} has no split {split!r}, expected train or test")
        rows = [int(number) - 1 for number in np.asarray(found).reshape(-1)]
        count = len(self._file["images"])
        if not rows or min(rows) < 0 or max(rows) >= count:
            raise InputError(f"{path} names frames that {self.path} of {count} does not have")
        return rows


class TumRgbd(FileSet):
    """A sequence of TUM RGB-D: ``rgb.txt``, ``depth.txt`` and, where known, ``groundtruth.txt``.

    Colour and depth are matched by stamp within 0.02 s. Depth is seen from the colour camera.
    """

    name = "tum"

    def __init__(self, root: Path) -> None:
        depths = _stamped_lines(root / "depth.txt")
        colours = _stamped_lines(root / "rgb.txt")
        entries: dict[str, tuple[Path, ...]] = {}
        self._stamps: dict[str, float] = {}
        for stamp, (colour,) in colours:
            depth = _nearest(depths, stamp)
            if depth is not None:
                key = key_of(f"{root.name}_{Path(colour).stem}")
                entries[key] = (root / colour, root / depth[0])
                self._stamps[key] = stamp
        poses = root / "groundtruth.txt"
        self._poses = _stamped_lines(poses, 7) if poses.is_file() else []
        numbers = [v for each, v in _TUM_CAMERAS.items() if each in root.name]
        self._camera = Intrinsics(640, 480, *(numbers[0] if numbers else _TUM_CAMERA))
        super().__init__(root, entries, "rgb.txt and depth.txt whose stamps match")

    def read(self, key: str, *paths: Path) -> Sample:
        depth_m = read_depth(paths[1], _TUM_UNIT_M)
        height, width = depth_m.shape
        pose = _nearest(self._poses, self._stamps[key])
        return make_sample(
            key,
            paths[0],
            depth_m,
            camera=self._camera.resized(width, height),
            camera_7=None if pose is None else np.array(pose, np.float32),
            recording=self.root.name,
            stamp_ns=round(self._stamps[key] * 1e9),
        )


class Taskonomy(FileSet):
    """Taskonomy, and Replica in its layout (Omnidata).

    ``BUILDING/rgb/point_0_view_0_domain_rgb.png`` or ``rgb/BUILDING/...``, with
    ``depth_zbuffer`` (16 bit, 1/512 m, 65535 for none) and ``point_info`` beside ``rgb``.
    """

    name = "taskonomy"

    def __init__(self, root: Path) -> None:
        entries: dict[str, tuple[Path, ...]] = {}
        for colour in sorted(root.glob("**/*_domain_rgb.png")):
            parts = list(colour.relative_to(root).parts)
            if "rgb" in parts[:-1]:
                depth, info = (
                    root.joinpath(*[task if part == "rgb" else part for part in parts[:-1]])
                    for task in ("depth_zbuffer", "point_info")
                )
                stem = colour.name.removesuffix("rgb.png")
                key = key_of("_".join(part for part in parts if part != "rgb").removesuffix(".png"))
                entries[key.removesuffix("_domain_rgb")] = (
                    colour,
                    depth / f"{stem}depth_zbuffer.png",
                    info / f"{stem}point_info.json",
                    Path(next((part for part in parts[:-1] if part != "rgb"), root.name)),
                )
        super().__init__(root, entries, "BUILDING/rgb/*_domain_rgb.png or rgb/BUILDING/...")

    def read(self, key: str, *paths: Path) -> Sample:
        depth_m = read_depth(paths[1], _TASKONOMY_UNIT_M, _TASKONOMY_NONE)
        height, width = depth_m.shape
        try:
            info = parse_json(paths[2].read_text(encoding="utf-8"))
            fov_deg = math.degrees(float(info["field_of_view_rads"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read {paths[2]}: {error!r}") from error
        camera = Intrinsics.from_fov(width, height, fov_deg)
        return make_sample(key, paths[0], depth_m, camera=camera, recording=str(paths[3]))


class Replica(FileSet):
    """Replica as NICE-SLAM renders it: ``cam_params.json`` above ``SCENE/results/frame000000.jpg``,
    ``depth000000.png`` and ``SCENE/traj.txt`` (camera to world, 16 numbers a line).
    """

    name = "replica"

    def __init__(self, root: Path) -> None:
        entries: dict[str, tuple[Path, ...]] = {}
        for colour in images_below(root, "*/results/frame*"):
            number = colour.stem.removeprefix("frame")
            scene = colour.parents[1]
            depth = colour.with_name(f"depth{number}.png")
            entries[key_of(f"{scene.name}_{number}")] = (colour, depth, scene)
        super().__init__(root, entries, "SCENE/results/frame000000.jpg")
        path = root / "cam_params.json"
        try:
            camera = parse_json(path.read_text(encoding="utf-8"))["camera"]
            fx, fy, cx, cy = (float(camera[each]) for each in ("fx", "fy", "cx", "cy"))
            self._camera = Intrinsics(int(camera["w"]), int(camera["h"]), fx, fy, cx, cy)
            self._unit_m = 1 / float(camera["scale"])
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise InputError(f"cannot read {path}: {error!r}") from error
        self._poses: dict[Path, np.ndarray] = {}

    def read(self, key: str, *paths: Path) -> Sample:
        scene = paths[2]
        if scene not in self._poses:
            path = scene / "traj.txt"
            try:
                self._poses[scene] = np.loadtxt(path, ndmin=2).reshape(-1, 4, 4)
            except (OSError, ValueError) as error:
                raise InputError(f"cannot read {path}: {error}") from error
        poses, number = self._poses[scene], int(key.rpartition("_")[2])
        depth_m = read_depth(paths[1], self._unit_m)
        height, width = depth_m.shape
        return make_sample(
            key,
            paths[0],
            depth_m,
            camera=self._camera.resized(width, height),
            camera_7=position_and_quaternion(poses[number]) if number < len(poses) else None,
            recording=scene.name,
        )


class CocoDoom(FileSet):
    """CocoDoom: ``RUN/MAP/rgb/000001.png`` and ``RUN/MAP/depth/000001.png`` (8 or 16 bit).

    Doom has no metres: ``unit_m`` is that of one step of the depth images.
    """

    name = "cocodoom"

    def __init__(self, root: Path, unit_m: float = 0.22) -> None:
        self._unit_m = unit_m
        entries: dict[str, tuple[Path, ...]] = {}
        for colour in sorted(root.glob("**/rgb/*.png")):
            depth = colour.parents[1] / "depth" / colour.name
            if depth.is_file():
                entries[key_of(colour.relative_to(root).with_suffix(""))] = (colour, depth)
        super().__init__(root, entries, "RUN/MAP/rgb/000001.png with depth/ beside rgb/")

    def read(self, key: str, *paths: Path) -> Sample:
        steps = read_image(paths[1])
        if steps.ndim == 3:  # gray, stored as colours
            steps = steps[..., 0]
        depth_m = steps.astype(np.float32) * np.float32(self._unit_m)
        height, width = depth_m.shape
        plain = Intrinsics.from_fov(width, height, _DOOM_HFOV_DEG)
        camera = Intrinsics(width, height, plain.fx, 1.2 * plain.fx, plain.cx, plain.cy)
        run = paths[0].relative_to(self.root).parents[1]
        return make_sample(key, paths[0], depth_m, camera=camera, recording=key_of(run))


def _stamped_lines(path: Path, columns: int = 1) -> list[tuple[float, tuple[str, ...]]]:
    """Lines of a stamp and ``columns`` words, by stamp; comments are left out."""
    require_regular_file(path)
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            stamp = float(words[0])
            found = tuple(words[1 : 1 + columns])
            if len(found) < columns:
                raise ValueError(f"{len(words)} words")
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}, expected a stamp first") from error
        lines.append((stamp, found))
    return sorted(lines)


def _nearest(lines: list[tuple[float, tuple[str, ...]]], stamp: float) -> tuple[str, ...] | None:
    at = bisect.bisect_left(lines, (stamp,))
    near = lines[max(0, at - 1) : at + 1]
    best = min(near, key=lambda line: abs(line[0] - stamp), default=None)
    return best[1] if best is not None and abs(best[0] - stamp) <= _TUM_TOLERANCE_S else None
