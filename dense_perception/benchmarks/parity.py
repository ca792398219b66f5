"""``dense-perception benchmark parity``: precisions in backends against fp32, cell by cell."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dense_perception.core.card import ModelCard
    from dense_perception.core.registry import Model

HELP = "Compare every precision in every installed backend with fp32: error, size, speed, memory."
EXAMPLES = """\
examples:
  dense-perception benchmark parity dpt_tiny_indoor
  dense-perception benchmark parity dpt_tiny_indoor --frames recording/ --picture parity.png
  dense-perception benchmark parity models/my_model.yaml --frames photos/ --json

Each cell is measured in a process of its own, with an empty cache, so that build time and peak
memory are its own. The reference is ONNX Runtime in fp32 on the same frames: the card's reference
frames, or --frames. max and mean are shares of the reference's range; AbsRel and d1 are taken with
the reference as the truth, agreement is the share of equal labels. If --frames is a bag with depth,
the aligned AbsRel and d1 against that depth follow.
"""
REFERENCE = "onnxruntime/fp32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model's name (see `dense-perception models`) or file")
    parser.add_argument("--frames", metavar="FOLDER|VIDEO|BAG", help="compare on these")
    parser.add_argument("--limit", type=int, default=24, metavar="N", help="of them (default 24)")
    parser.add_argument("--runs", type=int, default=40, help="timed runs of a cell (default 40)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, gpu, ... (default: cpu)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default 0: all cores)")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the table there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dense_perception.backends.select import installed_backends
    from dense_perception.core.card_specs import PRECISIONS
    from dense_perception.core.errors import BackendError, InputError
    from dense_perception.core.machine import cpu_name
    from dense_perception.core.registry import find_model

    if options.runs < 1 or options.limit < 1:
        raise InputError(f"got --runs {options.runs} --limit {options.limit}, expected 1 or more")
    model = find_model(options.model)
    order = sorted(model.precisions, key=PRECISIONS.index)
    cells = [(name, kind) for kind in order for name in installed_backends()]
    if options.picture and options.picture.suffix.lower() != ".png":
        raise InputError(f"--picture is {options.picture}, expected a name ending in .png")
    rows: list[dict[str, Any]] = []
    outputs: dict[str, dict[str, np.ndarray]] = {}
    with tempfile.TemporaryDirectory(prefix="parity-") as scratch:
        frames = Path(scratch) / "frames.npz"
        feeds = _feeds(options.frames, model.card, options.limit)
        np.savez(frames, **feeds)  # type: ignore[arg-type]
        bag = _bag_with_depth(options.frames, model.card)
        for backend, precision in tqdm(cells, unit="cell", disable=None, file=sys.stderr):
            row, answers = _cell(model, backend, precision, frames, bag, Path(scratch), options)
            rows.append(row)
            if answers:
                outputs[row["name"]] = answers
    if not outputs:
        raise BackendError(f"nothing can run {model.card.name}: {rows[0]['error']}")
    reference = REFERENCE if REFERENCE in outputs else next(iter(outputs))
    for row in rows:
        if row["name"] in outputs:
            row |= compare(outputs[row["name"]], outputs[reference])
    summary = {
        "model": model.card.name,
        "network": f"{model.card.input.width}x{model.card.input.height}",
        "depth": model.card.depth.kind.value if model.card.depth else None,
        "frames": len(feeds["image"]),
        "of": options.frames or "reference frames",
        "reference": reference,
        "cpu": cpu_name(),
        "rows": rows,
    }
    if options.picture:
        from dense_perception.benchmarks.parity_picture import draw

        draw(options.picture, summary, feeds["image"][0], outputs)
    print(json.dumps(summary) if options.json else table(summary))
    return 1 if any("error" in row for row in rows) else 0


def compare(got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Errors of one cell's outputs against the reference's; arrays (frames, height, width).

    Of depth: ``max_of_range``, ``mean_of_range``, and ``abs_rel`` and ``d1`` with the reference as
    the truth. Of labels: ``agreement``, the share of equal pixels.
    """
    from dense_perception.metrics.depth import abs_rel, delta

    found: dict[str, float] = {}
    if "depth" in want:
        span = float(np.ptp(want["depth"])) or 1.0
        error = np.abs(got["depth"].astype(np.float64) - want["depth"]) / span
        found["max_of_range"] = round(float(error.max()), 6)
        found["mean_of_range"] = round(float(error.mean()), 6)
        found["abs_rel"] = round(abs_rel(got["depth"], want["depth"]), 5)
        found["d1"] = round(delta(got["depth"], want["depth"]), 5)
    if "labels" in want:
        found["agreement"] = round(float(np.mean(got["labels"] == want["labels"])), 5)
    return found


def _cell(
    model: Model,
    backend: str,
    precision: str,
    frames: Path,
    bag: str | None,
    scratch: Path,
    options: argparse.Namespace,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    file, _ = model.artefact(precision)
    answers = scratch / f"{backend}_{precision}.npz"
    request = {
        "file": str(file.path.resolve()),
        "backend": backend,
        "device": options.device,
        "threads": options.threads,
        "runs": options.runs,
        "frames": str(frames),
        "outputs": str(answers),
        "bag": bag,
    }
    row: dict[str, Any] = {
        "name": f"{backend}/{precision}",
        "file_mb": round(len(file.content) / 1e6, 2),
    }
    # A cache of its own: a build that was done before would cost nothing.
    surroundings = {**os.environ, "XDG_CACHE_HOME": str(scratch / f"cache_{backend}_{precision}")}
    done = subprocess.run(
        [sys.executable, "-m", "dense_perception.benchmarks.parity_cell", json.dumps(request)],
        capture_output=True,
        text=True,
        env=surroundings,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {**row, "error": f"the process ended with {done.returncode}: {last}"}, {}
    row |= json.loads(lines[-1])
    if "error" in row:
        return row, {}
    with np.load(answers) as stored:
        return row, {name: stored[name] for name in stored.files}


def _feeds(source: str | None, card: ModelCard, limit: int) -> dict[str, np.ndarray]:
    """Graph inputs: the card's reference frames, or ``limit`` frames spread over a source."""
    from dense_perception.core.errors import InputError
    from dense_perception.core.reference_frames import reference_feeds
    from dense_perception.imaging.resize import prepare
    from dense_perception.media.sources import open_source

    if source is None:
        return reference_feeds(
            card, int(card.parity.get("frames", 3)), int(card.parity.get("seed", 0))
        )
    images: list[np.ndarray] = []
    stride = 1
    stream = open_source(source)
    try:
        for index, item in enumerate(stream):
            if index % stride == 0:
                images.append(prepare(item.frame.rgb_hwc, card.input.width, card.input.height))
            if len(images) == 2 * limit:
                images, stride = images[::2], 2 * stride
    finally:
        stream.close()
    if not images:
        raise InputError(f"no frame of {source} could be read: check it with another program")
    chosen = np.unique(np.linspace(0, len(images) - 1, min(limit, len(images))).round()).astype(int)
    feeds = {"image": np.stack([images[index] for index in chosen])}
    if card.input.focal:
        feeds["focal_px"] = np.full(len(chosen), card.input.width, np.float32)
    return feeds


def _bag_with_depth(source: str | None, card: ModelCard) -> str | None:
    from dense_perception.core.errors import InputError
    from dense_perception.evaluation.bags import PairSource
    from dense_perception.media.sources import is_bag

    if source is None or card.depth is None or not is_bag(Path(source)):
        return None
    try:
        PairSource(Path(source)).close()
    except InputError:
        return None
    return source


def table(summary: dict[str, Any]) -> str:
    rows = summary["rows"]
    columns = [
        ("file_mb", "MB", ".1f"),
        ("build_s", "build s", ".2f"),
        ("median_ms", "median ms", ".1f"),
        ("p95_ms", "p95 ms", ".1f"),
        ("peak_mb", "peak MB", ".0f"),
        ("max_of_range", "max", ".5f"),
        ("mean_of_range", "mean", ".5f"),
        ("abs_rel", "AbsRel", ".4f"),
        ("d1", "d1", ".4f"),
        ("agreement", "agreement", ".4f"),
    ]
    for row in rows:
        row |= {f"true_{key}": value for key, value in row.get("truth", {}).items()}
    columns += [
        ("true_aligned_abs_rel", "bag AbsRel", ".4f"),
        ("true_aligned_d1", "bag d1", ".4f"),
    ]
    shown = [column for column in columns if any(column[0] in row for row in rows)]
    lines = [
        f"{summary['model']}: {summary['network']}, {summary['frames']} frames "
        f"({summary['of']}), against {summary['reference']}, {summary['cpu']}",
        f"{'':18}" + "".join(f"{title:>11}" for _, title, _ in shown),
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"{row['name']:18} {row['error']}")
            continue
        cells = [format(row[key], form) if key in row else "-" for key, _, form in shown]
        lines.append(f"{row['name']:18}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)
