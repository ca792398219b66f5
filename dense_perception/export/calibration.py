"""Frames to calibrate on, and what the activations of a graph look like on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError

_BINS = 2048
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class Statistics:
    """Magnitudes and channel means of one activation over all frames.

    Channels are axis 1 of maps (rank 4) and the last axis of tokens.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self.counts = np.zeros(_BINS, np.int64)
        self._sum: np.ndarray | float = 0.0
        self._frames = 0

    @property
    def channel_mean(self) -> np.ndarray:
        """float64 (channels,)."""
        return np.asarray(self._sum) / max(self._frames, 1)

    def add(self, array: np.ndarray) -> None:
        self.largest = max(self.largest, float(np.abs(array).max()))
        channel = 1 if array.ndim == 4 else array.ndim - 1
        others = tuple(axis for axis in range(array.ndim) if axis != channel)
        self._sum = self._sum + len(array) * array.mean(axis=others, dtype=np.float64)
        self._frames += len(array)

    def add_histogram(self, array: np.ndarray) -> None:
        if self.largest > 0:
            counts, _ = np.histogram(np.abs(array), _BINS, (0.0, self.largest))
            self.counts += counts

    def limit(self, method: str, percentile: float) -> float:
        """The magnitude that becomes 127; see :class:`~..quantize.QuantizeOptions`."""
        if self.largest == 0:
            return 1.0
        if method == "percentile":
            return self._percentile(percentile)
        if method == "mse":
            return self._mse()
        return self.largest

    def _percentile(self, percentile: float) -> float:
        cumulative = np.cumsum(self.counts)
        index = int(np.searchsorted(cumulative, cumulative[-1] * percentile / 100))
        return self.largest * min(index + 1, _BINS) / _BINS

    def _mse(self) -> float:
        centres = (np.arange(_BINS) + 0.5) * self.largest / _BINS
        shares = np.linspace(0.2, 1.0, 81)
        errors = []
        for limit in shares * self.largest:
            step = limit / 127
            rounded = np.minimum(np.rint(centres / step), 127) * step
            # Within one step the error is uniform; the bins are too coarse to show that.
            inside = np.where(centres <= limit, step**2 / 12, (centres - rounded) ** 2)
            errors.append(float((self.counts * inside).sum()))
        return float(shares[int(np.argmin(errors))] * self.largest)


def observe(
    model: onnx.ModelProto,
    names: Iterable[str],
    frames: Iterable[Mapping[str, np.ndarray]],
    histograms: bool,
) -> dict[str, Statistics]:
    """Run the graph in ONNX Runtime and watch the tensors ``names``.

    :raises InputError: if there are no frames.
    """
    import onnxruntime

    names = list(names)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    inputs = {value.name for value in model.graph.input}
    for name in names:
        if name not in inputs:
            watched.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = {name: Statistics() for name in names}
    kept = list(frames)
    if not kept:
        raise InputError("there are no calibration frames: give a folder with pictures or a corpus")
    for second_pass in (False, True) if histograms else (False,):
        for feeds in kept:
            values: dict[str, Any] = {**feeds, **dict(_run(session, names, inputs, feeds))}
            for name in names:
                if second_pass:
                    found[name].add_histogram(values[name])
                else:
                    found[name].add(values[name])
    return found


def _run(
    session: Any, names: list[str], inputs: set[str], feeds: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    computed = [name for name in names if name not in inputs]
    return zip(computed, session.run(computed, dict(feeds)), strict=True)


def calibration_frames(
    folder: Path, card: ModelCard, count: int = 64
) -> list[dict[str, np.ndarray]]:
    """``count`` frames evenly spread over a folder of pictures or a generated corpus.

    A corpus is a folder with ``shard_*/rgb.npy`` (frames, height, width, 3) uint8. Frames are
    resized as at run time; the focal length is one image width, which no activation depends on.

    :raises InputError: if the folder holds neither, or a file cannot be read.
    """
    folder = Path(folder)
    shards = sorted(folder.glob("shard_*/rgb.npy"))
    pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _PICTURES)
    if shards:
        images = _from_shards(shards, count)
    elif pictures:
        images = _from_pictures(pictures, count)
    else:
        raise InputError(
            f"{folder} holds no pictures and no corpus: give a folder with {', '.join(_PICTURES)} "
            "or one with shard_*/rgb.npy"
        )
    return [_feeds(rgb_hwc, card) for rgb_hwc in images]


def _feeds(rgb_hwc: np.ndarray, card: ModelCard) -> dict[str, np.ndarray]:
    from dense_perception.imaging.resize import prepare

    feeds = {"image": prepare(rgb_hwc, card.input.width, card.input.height)[None]}
    if card.input.focal:
        feeds["focal_px"] = np.array([card.input.width], np.float32)
    return feeds


def _from_shards(paths: list[Path], count: int) -> Iterator[np.ndarray]:
    shards = []
    for path in paths:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot read the frames in {path}: {error}: make them again"
            ) from error
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            raise InputError(
                f"{path} is {array.dtype} {array.shape}, expected uint8 (frames, height, width, 3)"
            )
        shards.append(array)
    ends = np.cumsum([len(array) for array in shards])
    for index in _spread(int(ends[-1]), count):
        which = int(np.searchsorted(ends, index, side="right"))
        yield np.asarray(shards[which][index - int(ends[which])])


def _from_pictures(paths: list[Path], count: int) -> Iterator[np.ndarray]:
    import cv2

    for index in _spread(len(paths), count):
        bgr_hwc = None
        with contextlib.suppress(OSError, cv2.error):
            bgr_hwc = cv2.imdecode(np.fromfile(paths[index], np.uint8), cv2.IMREAD_COLOR)
        if bgr_hwc is None:
            raise InputError(f"{paths[index]} cannot be read as a picture: replace or remove it")
        yield cv2.cvtColor(bgr_hwc, cv2.COLOR_BGR2RGB)


def _spread(total: int, count: int) -> list[int]:
    """``count`` indices evenly over ``total``, each once."""
    return [int(i) for i in np.unique(np.linspace(0, total - 1, min(count, total)).round())]
