"""Precisions in backends against fp32, cell by cell: error, size, speed and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np
from tqdm import tqdm

from dense_perception.backends.device import choose_device
from dense_perception.backends.opening import installed_backends, is_gpu
from dense_perception.benchmarks.parity_cell import CellRequest
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import PRECISIONS
from dense_perception.core.errors import ArtefactError, BackendError, InputError
from dense_perception.core.json_text import json_text
from dense_perception.core.machine import cpu_name
from dense_perception.core.prediction import DepthKind
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.core.registry import find_model
from dense_perception.evaluation.bags import PairSource
from dense_perception.imaging.resize import prepare, resample
from dense_perception.media.bag_reader import is_bag
from dense_perception.media.sources import open_source
from dense_perception.metrics.depth import abs_rel, delta

REFERENCE = "onnxruntime/fp32"
OUT_OF_TIME = "not measured in the time there was"
_TALL, _TEXT, _BAR = 150, 330, 260
_INK, _PALE, _BLUE = (40, 40, 40), (225, 225, 225), (190, 120, 40)
# An error of this share of the range is white in the error map.
_FULL_ERROR = 0.05


class ParityRow(TypedDict, total=False):
    """One cell. Of one that could not be measured only ``name``, ``file_mb`` and ``error``.

    ``*_of_range`` are shares of the reference's range; ``truth`` are metrics against a bag;
    ``gpu_mb`` is what more of the GPU's memory was in use than before, by all programs;
    ``problem`` says what made it slower than it could be.
    """

    name: str
    file_mb: float
    error: str
    runs_in: str
    problem: str
    build_s: float
    median_ms: float
    p95_ms: float
    peak_mb: float
    gpu_mb: float
    max_of_range: float
    mean_of_range: float
    abs_rel: float
    d1: float
    agreement: float
    truth: dict[str, float]


class ParityResult(TypedDict):
    """``of`` says what the ``frames`` are; ``depth`` is the kind, ``None`` for labels alone."""

    model: str
    network: str
    depth: str | None
    frames: int
    of: str
    reference: str
    cpu: str
    rows: list[ParityRow]


def measure_parity(
    name: str,
    *,
    source: str | None = None,
    limit: int = 24,
    runs: int = 40,
    device: str = "auto",
    threads: int = 0,
    picture: Path | None = None,
    topic: str | None = None,
    precisions: Collection[str] | None = None,
    until_s: float | None = None,
) -> ParityResult:
    """Measure every precision of a model in every installed backend, a process each.

    On a GPU, fp32 in ONNX Runtime on the CPU is the first cell and the reference, and
    Torch-TensorRT has a cell where it is installed.

    :param source: a folder, a video or a bag to compare on ``limit`` frames of; by default the
        card's reference frames.
    :param precisions: measure only these on ``device``.
    :param until_s: no cell goes on beyond this time of ``time.monotonic``; its row says so.
    :param picture: a PNG to draw the table to.
    :param topic: of a bag, the colour topic; by default the only one.
    :raises InputError: if an argument is out of range or ``source`` has no frame.
    :raises BackendError: if no cell can be measured.
    """
    if runs < 1 or limit < 1:
        raise InputError(f"got --runs {runs} --limit {limit}, expected 1 or more")
    if picture is not None and picture.suffix.lower() != ".png":
        raise InputError(f"--picture is {picture}, expected a name ending in .png")
    model = find_model(name)
    order = sorted(model.precisions, key=PRECISIONS.index)
    if precisions is not None:
        order = [kind for kind in order if kind in precisions]
    place, _ = choose_device(device)
    backends = list(installed_backends(place))
    if is_gpu(place) and find_spec("torch_tensorrt") is not None:
        backends.append("torch_tensorrt")
    cells = [(backend, kind, place) for kind in order for backend in backends]
    if is_gpu(place):
        # OpenVINO's GPU is Intel's.
        cells = [cell for cell in cells if cell[0] != "openvino"]
        cells.insert(0, ("onnxruntime", "fp32", "cpu"))
    rows: list[ParityRow] = []
    outputs: dict[str, dict[str, np.ndarray]] = {}
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        scratch = Path(folder)
        feeds = _feeds(source, model.card, limit, topic)
        np.savez(scratch / "frames.npz", **feeds)  # type: ignore[arg-type]
        bag = _bag_with_depth(source, model.card, topic)
        for backend, precision, where in tqdm(cells, unit="cell", disable=None, file=sys.stderr):
            if precision not in model.precisions:
                continue
            name = f"{backend}/{precision}" + (" cpu" if where != place else "")
            file, _ = model.artefact(precision)
            request = CellRequest(
                file=str(file.path.resolve()),
                backend=backend,
                device=where,
                threads=threads,
                runs=runs,
                frames=str(scratch / "frames.npz"),
                outputs=str(scratch / f"{backend}_{precision}_{where.replace(':', '')}.npz"),
                bag=bag,
                topic=topic,
            )
            row = _cell(name, request, scratch, until_s)
            rows.append(row)
            if "error" not in row:
                with np.load(request["outputs"]) as stored:
                    outputs[row["name"]] = {key: stored[key] for key in stored.files}
    if not outputs:
        raise BackendError(f"nothing can run {model.card.name}: {rows[0]['error']}")
    named = (f"{REFERENCE} cpu", REFERENCE, next(iter(outputs)))
    reference = next(name for name in named if name in outputs)
    for row in rows:
        if row["name"] in outputs:
            row.update(compare(outputs[row["name"]], outputs[reference]))
    result = ParityResult(
        model=model.card.name,
        network=f"{model.card.input.width}x{model.card.input.height}",
        depth=model.card.depth.kind.value if model.card.depth else None,
        frames=len(feeds["image"]),
        of=source or "reference frames",
        reference=reference,
        cpu=cpu_name(),
        rows=rows,
    )
    if picture is not None:
        draw(picture, result, feeds["image"][0], outputs)
    return result


def compare(got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> ParityRow:
    """Errors of one cell's outputs against the reference's; arrays (frames, height, width).

    Of depth: ``max_of_range``, ``mean_of_range``, and ``abs_rel`` and ``d1`` with the reference as
    the truth. Of labels: ``agreement``, the share of equal pixels.
    """
    found = ParityRow()
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
    name: str, request: CellRequest, scratch: Path, until_s: float | None = None
) -> ParityRow:
    """Measure one cell in a process; its answers go to the file that the request names."""
    row = ParityRow(name=name, file_mb=round(Path(request["file"]).stat().st_size / 1e6, 2))
    # A cache of its own: a build that was done before would cost nothing.
    cache = scratch / f"cache_{name.replace('/', '_').replace(' ', '_')}"
    left_s = None if until_s is None else until_s - time.monotonic()
    if left_s is not None and left_s <= 0:
        row["error"] = OUT_OF_TIME
        return row
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dense_perception.benchmarks.parity_cell", json_text(request)],
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            check=False,
            timeout=left_s,
        )
    except subprocess.TimeoutExpired:
        row["error"] = OUT_OF_TIME
        return row
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        row["error"] = f"the process ended with {done.returncode}: {last}"
    else:
        row.update(json.loads(lines[-1]))
    return row


def _feeds(
    source: str | None, card: ModelCard, limit: int, topic: str | None
) -> dict[str, np.ndarray]:
    """Graph inputs: the card's reference frames, or ``limit`` frames spread over a source."""
    if source is None:
        return reference_feeds(
            card, int(card.parity.get("frames", 3)), int(card.parity.get("seed", 0))
        )
    images: list[np.ndarray] = []
    stride = 1
    stream = open_source(source, topic=topic)
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


def _bag_with_depth(source: str | None, card: ModelCard, topic: str | None) -> str | None:
    if source is None or card.depth is None or not is_bag(Path(source)):
        return None
    try:
        PairSource(Path(source), topic=topic).close()
    except InputError:
        return None
    return source


def draw(
    path: Path,
    summary: ParityResult,
    image_hwc: np.ndarray,
    outputs: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """The table as a PNG: per cell a bar of its latency, its answer and where that is off.

    ``outputs``: cell name to arrays (frames, height, width); frame 0 is shown.

    :raises ArtefactError: if it cannot be written.
    """
    rows = [row for row in summary["rows"] if row["name"] in outputs]
    want = outputs[summary["reference"]]
    key = "depth" if "depth" in want else "labels"
    slowest = max(row["p95_ms"] for row in rows)
    near_is_small = summary["depth"] in (DepthKind.METRIC.value, DepthKind.RELATIVE.value)
    tile_width = round(_TALL * image_hwc.shape[1] / image_hwc.shape[0])
    head = _head(summary, image_hwc, tile_width)
    strips = [head]
    for row in rows:
        got, true = outputs[row["name"]][key][0], want[key][0]
        text = np.full((_TALL, _TEXT, 3), 255, np.uint8)
        _write(text, row["name"], 14, 34, 0.7)
        _write(text, f"{row['file_mb']:.1f} MB, build {row['build_s']:.2f} s", 14, 64)
        _write(text, f"peak memory {row['peak_mb']:.0f} MB", 14, 88)
        _write(text, _errors(row), 14, 112)
        strips.append(
            np.hstack(
                [
                    text,
                    _bar(row["median_ms"], row["p95_ms"], slowest),
                    _tile(_colour(got, true, key, near_is_small), tile_width),
                    _tile(_error(got, true, key), tile_width),
                ]
            )
        )
        strips.append(np.full((2, strips[-1].shape[1], 3), 235, np.uint8))
    ok, encoded = cv2.imencode(".png", np.vstack(strips))
    try:
        if not ok:
            raise OSError("the picture could not be encoded")
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise ArtefactError(f"cannot write {path}: {error.strerror or error}") from error


def _head(summary: ParityResult, image_hwc: np.ndarray, tile_width: int) -> np.ndarray:
    left = np.full((_TALL, _TEXT + _BAR, 3), 255, np.uint8)
    _write(left, f"{summary['model']}, {summary['network']}", 14, 38, 0.8)
    _write(left, f"against {summary['reference']}, {summary['frames']} frames", 14, 70)
    _write(left, str(summary["cpu"]), 14, 96)
    _write(left, "median and 95 % latency", _TEXT, 138)
    right = np.full((_TALL, tile_width, 3), 255, np.uint8)
    _write(right, "error, white:", 8, 112)
    _write(right, "5 % or other label", 8, 136)
    return np.hstack([left, _tile(image_hwc[..., ::-1], tile_width), right])


def _errors(row: ParityRow) -> str:
    if "agreement" in row:
        return f"labels agree {100 * row['agreement']:.2f} %"
    return f"error mean {row['mean_of_range']:.1e} max {row['max_of_range']:.1e}"


def _bar(median_ms: float, p95_ms: float, slowest: float) -> np.ndarray:
    canvas = np.full((_TALL, _BAR, 3), 255, np.uint8)
    full = _BAR - 30
    long, longer = (round(full * min(1.0, value / slowest)) for value in (median_ms, p95_ms))
    cv2.rectangle(canvas, (0, 50), (max(longer, 2), 80), _PALE, -1)
    cv2.rectangle(canvas, (0, 50), (max(long, 2), 80), _BLUE, -1)
    _write(canvas, f"{median_ms:.1f} ms, 95 % {p95_ms:.1f}", 0, 104)
    return canvas


def _colour(got: np.ndarray, true: np.ndarray, key: str, near_is_small: bool) -> np.ndarray:
    if key == "labels":
        shades = (got.astype(np.int64) * 47 % 180).astype(np.uint8)
        hsv = np.stack([shades, np.full_like(shades, 150), np.full_like(shades, 220)], -1)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    low, span = float(true.min()), float(np.ptp(true)) or 1.0
    share = (got - low) / span
    # Near is red and far is blue, as in every other picture of depth.
    return cv2.applyColorMap(_bytes(1 - share if near_is_small else share), cv2.COLORMAP_TURBO)


def _error(got: np.ndarray, true: np.ndarray, key: str) -> np.ndarray:
    if key == "labels":
        gray = _bytes((got != true).astype(np.float32))
    else:
        gray = _bytes(np.abs(got - true) / ((float(np.ptp(true)) or 1.0) * _FULL_ERROR))
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)


def _bytes(share: np.ndarray) -> np.ndarray:
    return (np.clip(np.nan_to_num(share, nan=1.0), 0, 1) * 255).astype(np.uint8)


def _tile(bgr_hwc: np.ndarray, width: int) -> np.ndarray:
    return resample(np.ascontiguousarray(bgr_hwc), width, _TALL)


def _write(canvas: np.ndarray, text: str, x: int, y: int, size: float = 0.5) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
