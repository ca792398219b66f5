"""``dense-perception benchmark scale``: how well the scale sources find a scale that is known."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.prediction import DepthKind, DepthMap, LabelMap
from dense_perception.data.corpus import iterate_shards
from dense_perception.runtime.scale.alignment import Fit, fit_alignment
from dense_perception.runtime.scale.floor import fit_floor, is_floor
from dense_perception.runtime.scale.tracker import CONVERGED_ERROR

HELP = """\
Makes the exact depth of a generated corpus relative, with a scale and shift drawn at random and
a smooth error of 2 %, and asks each scale source for the metres. The error is that of the frame's
median depth; answered are the frames whose fit a node would use."""
EXAMPLES = """\
examples:
  dense-perception benchmark scale corpora/rooms_val
  dense-perception benchmark scale corpora/rooms_val --points 20 --outliers 0.4 --json
  dense-perception benchmark scale corpora/rooms_val --pitch-noise 0
"""

_POINT_NOISE = 0.01
_MODEL_NOISE = 0.02
_MUCH_FLOOR = 0.15
_KINDS = (DepthKind.RELATIVE, DepthKind.RELATIVE_INVERSE)


@dataclass(frozen=True)
class _Scene:
    depth_m: np.ndarray
    intrinsics: Intrinsics
    height_m: float
    pitch_deg: float
    labels: LabelMap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "corpus", type=Path, help="folder of `dense-perception data synthesize rooms`"
    )
    parser.add_argument("--points", type=int, default=50, help="known depths a frame (50)")
    parser.add_argument("--outliers", type=float, default=0.3, help="share of wrong ones (0.3)")
    parser.add_argument(
        "--pitch-noise",
        type=float,
        default=0.5,
        metavar="DEGREES",
        help="standard error of the camera's pitch (0.5)",
    )
    parser.add_argument("--frames", type=int, default=0, help="at most so many (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(options: argparse.Namespace) -> int:
    """Print a row per source and kind of depth."""
    if options.points < 1 or not 0 <= options.outliers < 1:
        raise InputError(
            f"--points is {options.points} and --outliers {options.outliers}, expected at least 1 "
            "and a share from 0 to below 1"
        )
    if not 0 <= options.pitch_noise < 45:
        raise InputError(f"--pitch-noise is {options.pitch_noise}, expected degrees from 0 to 45")
    rng = np.random.default_rng(options.seed)
    errors: dict[tuple[str, str], list[float]] = {}
    scenes = list(_scenes(options.corpus))
    scenes = scenes[: options.frames or None]
    for scene in tqdm(scenes, unit="frame", disable=None):
        for kind in _KINDS:
            depth = _relative(scene.depth_m, kind, rng)
            points = _from_points(scene, depth, options.points, options.outliers, rng)
            _note(errors, "sparse points", kind, depth, scene, points)
            floor = np.isin(scene.labels.values_hw, _floor_labels(scene.labels)).mean()
            if floor < _MUCH_FLOOR or scene.height_m < 0.1:
                continue
            pitch = scene.pitch_deg + rng.normal(0, options.pitch_noise)
            for name, labels in (("labelled", scene.labels), ("fitted", None)):
                fit = fit_floor(depth, scene.intrinsics, scene.height_m, pitch, labels)
                _note(errors, f"camera height, {name} floor", kind, depth, scene, fit)
    rows = [_row(name, kind, values) for (name, kind), values in errors.items()]
    print(json.dumps(rows, indent=2) if options.json else _table(rows))
    return 0


def _scenes(corpus: Path) -> Iterator[_Scene]:
    labels = LABEL_SETS["generated_rooms"]
    names = ("depth_m", "intrinsics", "camera", "labels")
    for shard in iterate_shards(corpus, names, ()):
        for depth_m, k, pose, labels_hw in zip(*(shard[name] for name in names), strict=True):
            depth_m = depth_m.astype(np.float32)
            depth_m[~(depth_m > 0)] = np.nan
            height, width = depth_m.shape
            # Corpora count their classes from 1; 0, none, wraps to 255.
            classes = np.asarray(labels_hw) - np.uint8(1)
            yield _Scene(
                depth_m,
                Intrinsics(width, height, *map(float, k)),
                float(pose[2]),
                _pitch_deg(pose[3:]),
                LabelMap(classes, np.full_like(classes, 255), labels),
            )


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


def _row(name: str, kind: str, values: list[float]) -> dict[str, object]:
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


def _table(rows: list[dict[str, object]]) -> str:
    header = "| source | depth | frames | answered | median | p95 | within 3 % | within 5 % |"
    lines = [header, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        source, depth, frames, *shares = row.values()
        text = " | ".join(f"{100 * float(str(share)):.1f} %" for share in shares)
        lines.append(f"| {source} | {depth} | {frames} | {text} |")
    return "\n".join(lines)
