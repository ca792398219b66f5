"""How well the scale sources find a scale that is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.prediction import DepthKind, DepthMap, LabelMap
from dense_perception.data.corpus import Corpus
from dense_perception.data.description import DESCRIPTION_FILE
from dense_perception.data.numpy_layout import iterate_shards, shard_folders
from dense_perception.runtime.scale.alignment import Fit, fit_alignment
from dense_perception.runtime.scale.floor import fit_floor, is_floor
from dense_perception.runtime.scale.tracker import CONVERGED_ERROR

_POINT_NOISE = 0.01
_MODEL_NOISE = 0.02
_MUCH_FLOOR = 0.15
_KINDS = (DepthKind.RELATIVE, DepthKind.RELATIVE_INVERSE)


ScaleRow = TypedDict(
    "ScaleRow",
    {
        "source": str,
        "depth": str,
        "frames": int,
        "answered": float,
        "median error": float,
        "p95 error": float,
        "within 3 %": float,
        "within 5 %": float,
    },
)
"""One source on one kind of depth; errors and shares from 0 to 1, NaN where nothing answered."""


@dataclass(frozen=True)
class _Scene:
    depth_m: np.ndarray
    intrinsics: Intrinsics
    height_m: float
    pitch_deg: float
    labels: LabelMap


def measure_scale_sources(
    corpus: Path,
    *,
    points: int = 50,
    outliers: float = 0.3,
    pitch_noise_deg: float = 0.5,
    limit: int | None = None,
    seed: int = 0,
) -> list[ScaleRow]:
    """Hide the metres of a generated corpus, and ask each scale source for them.

    :param points: known depths a frame, a share ``outliers`` of which is wrong.
    :param pitch_noise_deg: standard error of the camera's pitch.
    :param limit: take no more frames than this.
    :raises InputError: if an argument is out of range or ``corpus`` has no shards.
    """
    if points < 1 or not 0 <= outliers < 1:
        raise InputError(
            f"--points is {points} and --outliers {outliers}, expected at least 1 and a share from "
            "0 to below 1"
        )
    if not 0 <= pitch_noise_deg < 45:
        raise InputError(f"--pitch-noise is {pitch_noise_deg}, expected degrees from 0 to 45")
    rng = np.random.default_rng(seed)
    errors: dict[tuple[str, str], list[float]] = {}
    scenes = list(_scenes(corpus))[:limit]
    for scene in tqdm(scenes, unit="frame", disable=None):
        for kind in _KINDS:
            depth = _relative(scene.depth_m, kind, rng)
            fit = _from_points(scene, depth, points, outliers, rng)
            _note(errors, "sparse points", kind, depth, scene, fit)
            floor = np.isin(scene.labels.values_hw, _floor_labels(scene.labels)).mean()
            if floor < _MUCH_FLOOR or scene.height_m < 0.1:
                continue
            pitch = scene.pitch_deg + rng.normal(0, pitch_noise_deg)
            for name, labels in (("labelled", scene.labels), ("fitted", None)):
                fit = fit_floor(depth, scene.intrinsics, scene.height_m, pitch, labels)
                _note(errors, f"camera height, {name} floor", kind, depth, scene, fit)
    return [_row(name, kind, values) for (name, kind), values in errors.items()]


def _scenes(corpus: Path) -> Iterator[_Scene]:
    labels = LABEL_SETS["generated_rooms"]
    for depth_m, camera, pose, labels_hw in _labelled(corpus):
        depth_m = depth_m.astype(np.float32)
        depth_m[~(depth_m > 0)] = np.nan
        # Corpora count their classes from 1; 0, none, wraps to 255.
        classes = np.asarray(labels_hw) - np.uint8(1)
        yield _Scene(
            depth_m,
            camera,
            float(pose[2]),
            _pitch_deg(pose[3:]),
            LabelMap(classes, np.full_like(classes, 255), labels),
        )


def _labelled(root: Path) -> Iterator[tuple[np.ndarray, Intrinsics, np.ndarray, np.ndarray]]:
    """Depth, intrinsics, pose and labels of each frame; the earlier layout needs no description."""
    if not shard_folders(root) and (root / DESCRIPTION_FILE).exists():
        corpus = Corpus(root)
        for index in range(len(corpus)):
            sample = corpus[index]
            if sample.camera_7 is None or sample.labels_hw is None:
                raise InputError(
                    f"frame {sample.key} of {root} has no pose or no labels, expected both: give a "
                    "generated corpus"
                )
            yield sample.depth_m, sample.intrinsics, sample.camera_7, sample.labels_hw
        return
    names = ("depth_m", "intrinsics", "camera", "labels")
    for shard in iterate_shards(root, names, ()):
        for depth_m, k, pose, labels_hw in zip(*(shard[name] for name in names), strict=True):
            height, width = depth_m.shape
            fx, fy, cx, cy = (float(value) for value in k)
            camera = Intrinsics(width, height, fx, fy, cx, cy)
            yield depth_m, camera, pose, labels_hw


def _pitch_deg(xyzw: np.ndarray) -> float:
    """How far the optical axis looks down, from the rotation optical frame to world, z up."""
    x, y = float(xyzw[0]), float(xyzw[1])
    return float(np.degrees(np.arcsin(-(1 - 2 * (x * x + y * y)))))


def _floor_labels(labels: LabelMap) -> list[int]:
    return [index for index, name in enumerate(labels.labels.labels) if is_floor(name)]


def _relative(depth_m: np.ndarray, kind: DepthKind, rng: np.random.Generator) -> DepthMap:
    scale = np.exp(rng.uniform(-2, 2))
    coarse = rng.normal(0, _MODEL_NOISE, (8, 10)).astype(np.float32)
    height, width = depth_m.shape
    error = 1 + cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    if kind is DepthKind.RELATIVE:
        return DepthMap((scale * depth_m * error).astype(np.float32), kind)
    shift = rng.uniform(0, 0.5)
    return DepthMap((scale * (error / depth_m + shift)).astype(np.float32), kind)


def _from_points(
    scene: _Scene, depth: DepthMap, count: int, outliers: float, rng: np.random.Generator
) -> Fit | None:
    places = rng.choice(np.flatnonzero(np.isfinite(scene.depth_m)), count, replace=False)
    metres = scene.depth_m.reshape(-1)[places].astype(np.float64)
    metres *= 1 + rng.normal(0, _POINT_NOISE, count)
    wrong = rng.choice(count, round(outliers * count), replace=False)
    metres[wrong] *= np.exp(rng.uniform(-1.5, 1.5, len(wrong)))
    return fit_alignment(depth, depth.values_hw.reshape(-1)[places], metres)


def _note(
    errors: dict[tuple[str, str], list[float]],
    name: str,
    kind: DepthKind,
    depth: DepthMap,
    scene: _Scene,
    fit: Fit | None,
) -> None:
    error = float("nan")
    if fit is not None and fit.is_sound and fit.error <= CONVERGED_ERROR:
        ratio = fit.alignment.metres(depth.values_hw) / scene.depth_m
        error = abs(float(np.nanmedian(ratio)) - 1)
    errors.setdefault((name, kind.value), []).append(error)


def _row(name: str, kind: str, values: list[float]) -> ScaleRow:
    known = np.array(values)[np.isfinite(values)]
    median, p95 = np.percentile(known, (50, 95)) if len(known) else (np.nan, np.nan)
    return {
        "source": name,
        "depth": kind,
        "frames": len(values),
        "answered": len(known) / len(values),
        "median error": round(float(median), 4),
        "p95 error": round(float(p95), 4),
        "within 3 %": round(float((known < 0.03).mean()), 4) if len(known) else 0.0,
        "within 5 %": round(float((known < 0.05).mean()), 4) if len(known) else 0.0,
    }
