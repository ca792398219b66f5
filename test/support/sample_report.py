"""A report as an evaluation writes it, with invented numbers: four models, two baselines."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from dense_perception.evaluation.document import (
    VERSION,
    Change,
    ClassValue,
    ContestantData,
    Curves,
    FigureValue,
    PairValue,
    Point,
    Report,
    ShownFrame,
    SliceValue,
)
from dense_perception.evaluation.figures import catalogue
from dense_perception.evaluation.panels import depth_panels, write_panels

MODELS = (
    "dpt_tiny_indoor (fp32)",
    "dpt_tiny_indoor (int8)",
    "mult_tiny_indoor (fp32)",
    "mult_tiny_indoor (int8)",
)
BASELINES = ("row prior", "constant")
CLASSES = ("floor", "wall", "chair", "table", "door", "lamp", "potted plant")
RECORDINGS = tuple(f"walk_{k}" for k in range(6))


def sample_report(frames: int = 1024, *, compared: bool = True) -> Report:
    """Everything that a report can have; ``frames`` in all."""
    rng = np.random.default_rng(7)
    spread = _Spread(rng, frames)
    names = (*MODELS, *BASELINES)
    figures = {name: spread.figures(k, name) for k, name in enumerate(names)}
    return Report(
        version=VERSION,
        command=[
            "dense-perception",
            "evaluate",
            *MODELS,
            "--data",
            "walks/my walk.mcap",
            "-o",
            "r",
        ],
        created="2026-11-27T02:30:00+00:00",
        versions={"dense_perception": "0.1.0", "python": "3.11.2", "onnxruntime": "1.23.0"},
        machine={
            "system": "Linux 6.1",
            "processor": "AMD EPYC 9B14",
            "cores": 2,
            "memory_gb": 23.4,
            "accelerators": [],
        },
        data=[
            {
                "name": name,
                "path": f"recordings/{name}.mcap",
                "kind": "bag",
                "frames": frames // 6 + 3,
                "scored": frames // 6,
                "skipped": [{"what": "frames", "why": "no depth within 5 ms", "count": 3}],
            }
            for name in RECORDINGS
        ],
        contestants=[_contestant(k, name, frames) for k, name in enumerate(names)],
        method={
            "unit": "recordings",
            "units": 6,
            "resamples": 2000,
            "seed": 0,
            "level": 0.95,
            "speaks_for": "recordings like these 6",
            "crop": None,
            "max_depth_m": 20.0,
        },
        figures=figures,
        slices={name: spread.slices(figures[name]) for name in names},
        pairs=_pairs(figures),
        curves={name: spread.curves(k) for k, name in enumerate(MODELS)},
        per_class={name: spread.classes() for name in MODELS[2:]},
        verdict=[
            {
                "text": "mult_tiny_indoor (int8) is better than dpt_tiny_indoor (int8) in AbsRel "
                "of the metric depth by 0.012 [0.004, 0.020].",
                "pair": 0,
            },
            {"text": "Whether int8 costs mult_tiny_indoor accuracy is not certain.", "pair": 1},
            {"text": "Every model is better than the row prior.", "pair": None},
        ],
        changes=_changes() if compared else [],
        compared_with="before/report.json" if compared else None,
        frames_shown=[],
        problems=["walk_3.mcap: the last chunk is cut off, 12 messages are lost"],
        units={},
    )


def add_pictures(report: Report, folder: Path, size: tuple[int, int] = (240, 320)) -> None:
    """Worst, median and best frames of two models, with their pictures below ``folder``."""
    rng = np.random.default_rng(3)
    rows = np.linspace(4, 1, size[0])[:, None] + np.linspace(0, 1, size[1])
    for k, name in enumerate(MODELS):
        for j, rank in enumerate(("worst", "median", "best")):
            true = rows.astype(np.float32) * (1 + j)
            rgb = rng.integers(0, 255, (size[0] // 8, size[1] // 8, 3), np.uint8)
            rgb = np.kron(rgb, np.ones((8, 8, 1), np.uint8))
            wrong = true * (1 + 0.3 / (1 + j) * np.sin(np.arange(size[1]) / 20)).astype(np.float32)
            drawn = depth_panels(rgb, true, wrong)
            shown = ShownFrame(
                contestant=name,
                recording=RECORDINGS[j],
                key=f"{100 + k + j:06d}",
                stamp_ns=1_700_000_000_000_000_000 + j,
                task="depth",
                rank=rank,  # type: ignore[typeddict-item]
                figure="depth.metric.absrel",
                value=0.3 / (1 + j),
                near_m=drawn.near_m,
                far_m=drawn.far_m,
                panels=write_panels(drawn, folder, f"{k}-{j}"),
            )
            report["frames_shown"].append(shown)


class _Spread:
    def __init__(self, rng: np.random.Generator, frames: int) -> None:
        self._rng, self._frames = rng, frames

    def figures(self, k: int, name: str) -> dict[str, FigureValue]:
        baseline = name in BASELINES
        found: dict[str, FigureValue] = {}
        for each in catalogue().values():
            task = each.name.split(".")[0]
            if task in ("labels", "normals", "edges", "confidence") and not name.startswith("mult"):
                continue
            if baseline and not each.name.startswith(("depth.metric", "depth.aligned")):
                continue
            level = {"lower": 0.14, "higher": 0.8, "one": 1.0}[each.better]
            level *= 10 if each.unit == "deg" else 1
            worse = 0.1 * (6 - k if not baseline else 2 * k)
            value = level * (1 - worse / 8 if each.better == "higher" else 1 + worse)
            found[each.name] = self._value(value)
        return found

    def _value(self, value: float) -> FigureValue:
        half = abs(value) * float(self._rng.uniform(0.02, 0.1))
        return {
            "value": value,
            "low": value - half,
            "high": value + half,
            "n_frames": self._frames,
            "n_recordings": 6,
        }

    def slices(self, figures: dict[str, FigureValue]) -> dict[str, list[SliceValue]]:
        axes = {
            "distance": ("0-1", "1-2", "2-4", "4-8", "8-16"),
            "class": CLASSES,
            "brightness": ("dark", "middle", "bright"),
            "blur": ("sharp", "middle", "blurred"),
            "recording": RECORDINGS,
        }
        found: dict[str, list[SliceValue]] = {}
        for axis, bins in axes.items():
            for figure in ("depth.metric.absrel", "labels.accuracy"):
                if figure not in figures:
                    continue
                for k, part in enumerate(bins):
                    value = (figures[figure]["value"] or 0.0) * (0.8 + 0.15 * k)
                    found.setdefault(axis, []).append(
                        {
                            "bin": part,
                            "figure": figure,
                            "value": value,
                            "low": value * 0.9,
                            "high": value * 1.1,
                            "n": self._frames - 10 * k,
                        }
                    )
        return found

    def curves(self, k: int) -> Curves:
        edges = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
        scale: list[Point] = []
        errors: list[Point] = []
        for j, (low, high) in enumerate(pairwise(edges)):
            for curve, value in (
                (scale, 1.1 - 0.05 * j + 0.03 * k),
                (errors, 0.08 + 0.03 * j - 0.01 * k),
            ):
                curve.append(
                    {
                        "x_low": low,
                        "x_high": high,
                        "value": None if j == 5 else value,
                        "low": None if j == 5 else value * 0.92,
                        "high": None if j == 5 else value * 1.08,
                        "n": 900.0,
                    }
                )
        return {
            "scale_by_distance": scale,
            "absrel_by_distance": errors,
            "reliability": [
                {
                    "x_low": j / 15,
                    "x_high": (j + 1) / 15,
                    "said": (j + 0.5) / 15 if j > 3 else None,
                    "right": 0.9 * (j + 0.5) / 15 if j > 3 else None,
                    "pixels": 1e5 * j,
                }
                for j in range(15)
            ]
            if k > 1
            else [],
        }

    def classes(self) -> list[ClassValue]:
        return [
            {
                "name": name,
                "iou": None if name == "lamp" else 0.8 - 0.1 * k,
                "low": None if name == "lamp" else 0.75 - 0.1 * k,
                "high": None if name == "lamp" else 0.85 - 0.1 * k,
                "accuracy": 0.9 - 0.1 * k,
                "share": 0.4 / (k + 1),
            }
            for k, name in enumerate(CLASSES)
        ]


def _contestant(k: int, name: str, frames: int) -> ContestantData:
    baseline = name in BASELINES
    return {
        "name": name,
        "kind": "baseline" if baseline else "artefact",
        "file": None if baseline else f"models/model_{k}.onnx",
        "sha256": None if baseline else f"{k}" * 64,
        "precision": None if baseline else name[-5:-1],
        "backend": None if baseline else ("openvino", "onnxruntime")[k % 2],
        "device": None if baseline else "CPU",
        "latency_ms": None if baseline else {"median": 14.0 + 9 * k, "p95": 19.0 + 11 * k},
        "memory_mb": None if baseline else 120.0 + 31 * k,
        "intrinsics_assumed": 12 if k == 1 else 0,
        "frames": frames,
        "failed": [{"what": "frames", "why": "no answer", "count": 2}] if k == 3 else [],
    }


def _pairs(figures: dict[str, dict[str, FigureValue]]) -> list[PairValue]:
    pairs: list[PairValue] = []
    figure = "depth.metric.absrel"
    for a, b, certain in (
        (MODELS[3], MODELS[1], True),
        (MODELS[3], MODELS[2], False),
        (MODELS[3], MODELS[0], True),
        (MODELS[0], MODELS[1], False),
        (MODELS[3], BASELINES[0], True),
    ):
        difference = (figures[a][figure]["value"] or 0) - (figures[b][figure]["value"] or 0)
        half = abs(difference) * (0.5 if certain else 1.5)
        pairs.append(
            {
                "a": a,
                "b": b,
                "figure": figure,
                "difference": difference,
                "low": difference - half,
                "high": difference + half,
                "better": a if difference < 0 else b,
                "certain": certain,
                "why": "the interval excludes 0 in 6 recordings"
                if certain
                else "the interval includes 0",
                "n_frames": 1024,
                "n_recordings": 6,
            }
        )
    return pairs


def _changes() -> list[Change]:
    rows: tuple[tuple[str, float, float, str], ...] = (
        ("depth.metric.absrel", 0.171, 0.182, "worse"),
        ("depth.metric.d1", 0.78, 0.80, "better"),
        ("depth.scale", 1.02, 1.021, "same"),
    )
    return [
        {
            "contestant": MODELS[0],
            "figure": figure,
            "before": before,
            "after": after,
            "difference": after - before,
            "low": after - before - 0.004,
            "high": after - before + 0.004,
            "verdict": verdict,  # type: ignore[typeddict-item]
            "why": "the interval excludes 0" if verdict != "same" else "the interval includes 0",
        }
        for figure, before, after, verdict in rows
    ]
