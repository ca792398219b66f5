"""Pictures of one answered frame for the report: image, truth, prediction, error.

All have the image's aspect and at most ``MAX_SIDE`` pixels a side. Black is where there is nothing
to compare. How large an error is from its colour: depth from blue (nearer than the truth) through
white (right) to red (farther), full at ``DEPTH_LIMIT``; normals from white to full violet at
``ANGLE_LIMIT_DEG``; labels orange where wrong, over the image in gray. Boxes of things over
the image in gray are blue where found, orange where missed, violet where false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.boxes import areas
from dense_perception.core.labels import LabelSet
from dense_perception.core.prediction import Instances, NormalMap
from dense_perception.core.storage import atomic_write
from dense_perception.imaging.colorize import colorize, robust_limits
from dense_perception.imaging.encode import encode_jpeg
from dense_perception.imaging.instance_overlay import instance_overlay
from dense_perception.imaging.resize import restore_labels

MAX_SIDE = 320
DEPTH_LIMIT = 0.3  # of the true depth
ANGLE_LIMIT_DEG = 45.0
_OPACITY = 0.45
_NAMED = 8  # things of a picture, the largest
FOLDER = "pictures"
_NEARER, _RIGHT, _FARTHER, _WRONG, _ANGLE = np.array(
    [(33, 102, 172), (247, 247, 247), (178, 24, 43), (230, 97, 1), (84, 39, 136)], np.uint8
)


@dataclass(frozen=True, slots=True, eq=False)
class Panels:
    """HxWx3 ``uint8`` RGB each; ``near_m`` and ``far_m`` are the limits of depth's colours.

    Depth is coloured as :func:`~dense_perception.imaging.colorize.colorize` does it: near is red,
    far is blue. Other maps have no limits.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    error: np.ndarray
    near_m: float | None = None
    far_m: float | None = None


def depth_panels(rgb_hwc: np.ndarray, true_m: np.ndarray, predicted_m: np.ndarray) -> Panels:
    """Depth in metres, HxW of one size; 0 and NaN are no depth. The image may have another size.

    Both maps have the same colours, from the 2nd to the 98th percentile of both where there is
    truth. A relative prediction is brought to the truth's scale before, as its figure was.
    """
    image = _fitted(rgb_hwc, rgb_hwc.shape[:2])
    truth, predicted = (_depth(_fitted(each, rgb_hwc.shape[:2])) for each in (true_m, predicted_m))
    both = np.concatenate([truth, np.where(np.isfinite(truth), predicted, np.float32(np.nan))])
    near_m, far_m = robust_limits(both) or (0.5, 5.0)
    relative = (predicted - truth) / truth
    return Panels(
        image,
        colorize(truth, near_m, far_m),
        colorize(predicted, near_m, far_m),
        _between(relative / DEPTH_LIMIT, _NEARER, _FARTHER),
        near_m,
        far_m,
    )


def label_panels(
    rgb_hwc: np.ndarray, true_hw: np.ndarray, predicted_hw: np.ndarray, labels: LabelSet
) -> Panels:
    """Labels of ``labels``, HxW ``uint8`` of one size; other numbers in the truth are void."""
    size = rgb_hwc.shape[:2]
    image, truth, predicted = (_fitted(each, size) for each in (rgb_hwc, true_hw, predicted_hw))
    known, table = truth < len(labels.labels), labels.colors()
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    error = np.where((truth != predicted)[..., None], _WRONG, gray // 2 + 64)
    return Panels(image, _cut(table[truth], known), table[predicted], _cut(error, known))


def normal_panels(rgb_hwc: np.ndarray, true_hwc: np.ndarray, predicted_hwc: np.ndarray) -> Panels:
    """Unit normals, HxWx3 ``float32`` of one size, NaN where unknown."""
    size = rgb_hwc.shape[:2]
    image, truth, predicted = (_fitted(each, size) for each in (rgb_hwc, true_hwc, predicted_hwc))
    cosine = np.clip(np.sum(truth * predicted, axis=2), -1, 1)
    angle = np.degrees(np.arccos(cosine))
    return Panels(
        image,
        NormalMap(truth.astype(np.float32)).colored(),
        NormalMap(predicted.astype(np.float32)).colored(),
        _between(angle / ANGLE_LIMIT_DEG, _ANGLE, _ANGLE),
    )


def thing_panels(
    rgb_hwc: np.ndarray, true: Instances, found: Instances, right_n: np.ndarray, met_m: np.ndarray
) -> Panels:
    """True and found things at the image's size.

    :param right_n: which of ``found`` are right, bool; ``met_m`` which of ``true`` are found.
    """
    image = _fitted(rgb_hwc, rgb_hwc.shape[:2])
    height, width = image.shape[:2]
    true, found = (_scaled(each, rgb_hwc.shape[:2], height, width) for each in (true, found))
    scored = [f"{n} {s:.2f}" for n, s in zip(found.names, found.scores_n, strict=True)]
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    error = gray // 2 + 64
    for boxes_n4, chosen_n, colour in (
        (found.boxes_n4, right_n, _NEARER),
        (found.boxes_n4, ~right_n, _ANGLE),
        (true.boxes_n4, ~met_m, _WRONG),
    ):
        for box in boxes_n4[chosen_n]:
            left, top = (int(side) for side in np.floor(box[:2]))
            right, bottom = (int(side) - 1 for side in np.ceil(box[2:]))
            corners = (left, top), (max(left, right), max(top, bottom))
            cv2.rectangle(error, *corners, tuple(int(each) for each in colour), 2)
    return Panels(
        image,
        instance_overlay(image, true, width, height, _OPACITY, texts=_largest(true, true.names)),
        instance_overlay(image, found, width, height, _OPACITY, texts=_largest(found, scored)),
        error,
    )


def _largest(things: Instances, texts: Sequence[str]) -> list[str]:
    """The texts of the largest things, empty for the others, where they would hide each other."""
    largest = set(np.argsort(-areas(things.boxes_n4), kind="stable")[:_NAMED].tolist())
    return [text if row in largest else "" for row, text in enumerate(texts)]


def _scaled(things: Instances, size_hw: tuple[int, ...], height: int, width: int) -> Instances:
    ratio = np.array([width / size_hw[1], height / size_hw[0]] * 2, np.float32)
    ids_hw = things.ids_hw
    if ids_hw is not None:
        ids_hw = restore_labels(ids_hw, width, height)
    return replace(things, boxes_n4=things.boxes_n4 * ratio, ids_hw=ids_hw, masks_nhw=None)


def write_panels(panels: Panels, folder: Path, stem: str) -> dict[str, str]:
    """Write ``pictures/STEM-image.jpg`` and so on below ``folder``; the paths from there by kind.

    :raises OSError: if they cannot be written.
    """
    paths: dict[str, str] = {}
    for kind in ("image", "truth", "prediction", "error"):
        paths[kind] = f"{FOLDER}/{stem}-{kind}.jpg"
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / paths[kind]) as stream:
            stream.write(encode_jpeg(getattr(panels, kind), quality=85))
    return paths


def _fitted(array: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """The array at the size of a panel; only ``uint8`` pictures are averaged."""
    scale = min(1.0, MAX_SIDE / max(size_hw))
    height, width = (max(1, round(side * scale)) for side in size_hw)
    averaged = array.ndim == 3 and array.dtype == np.uint8
    how = cv2.INTER_AREA if averaged else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(array, (width, height), interpolation=how))


def _depth(depth_m: np.ndarray) -> np.ndarray:
    depth_m = depth_m.astype(np.float32)
    return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(np.nan))


def _between(level: np.ndarray, below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Colours of -1 (``below``) over 0 (white) to 1 (``above``); black for NaN."""
    known = np.isfinite(level)
    share = np.clip(np.nan_to_num(level), -1, 1)[..., None]
    white = _RIGHT.astype(np.float32)
    mixed = white + np.abs(share) * (np.where(share < 0, below, above) - white)
    return _cut(np.rint(mixed).astype(np.uint8), known)


def _cut(picture: np.ndarray, known_hw: np.ndarray) -> np.ndarray:
    return np.where(known_hw[..., None], picture, np.uint8(0))
