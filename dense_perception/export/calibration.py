"""Frames to calibrate on, and what the activations of a graph look like on them."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.core.storage import read_file, real_path
from dense_perception.data.corpus import Corpus
from dense_perception.data.description import DESCRIPTION_FILE
from dense_perception.data.numpy_layout import iterate_shards, shard_folders
from dense_perception.imaging.messages import ImageReader
from dense_perception.imaging.resize import network_input, prepare, resample
from dense_perception.media.bag_reader import is_bag
from dense_perception.media.files import PICTURE_SUFFIXES, has_picture_name
from dense_perception.media.sources import open_source

if TYPE_CHECKING:
    import onnxruntime

_BINS = 2048
_ENOUGH = 8
_JUDGED = 8
_GENERATED = 8
# Of 255: noise of a camera that stands still is below, the next view of one that moves above.
_ALIKE, _FLAT = 1.0, 2.0
_log = logging.getLogger(__name__)


class Statistics:
    """Magnitudes and channel means of one activation over all frames.

    ``channel_axis`` says which axis the channels are: 1 of NCHW maps, -1 of tokens.
    """

    def __init__(self, channel_axis: int = -1) -> None:
        self.channel_axis = channel_axis
        self.largest = 0.0
        self.channel_largest = np.zeros(1)
        self.counts = np.zeros(_BINS, np.int64)
        self._sum: np.ndarray | float = 0.0
        self._frames = 0

    @property
    def channel_mean(self) -> np.ndarray:
        """float64 (channels,)."""
        return np.asarray(self._sum) / max(self._frames, 1)

    def add(self, array: np.ndarray) -> None:
        channel = self.channel_axis % array.ndim
        others = tuple(axis for axis in range(array.ndim) if axis != channel)
        self.channel_largest = np.maximum(self.channel_largest, np.abs(array).max(axis=others))
        self.largest = max(self.largest, float(self.channel_largest.max()))
        self._sum = self._sum + len(array) * array.mean(axis=others, dtype=np.float64)
        self._frames += len(array)

    def add_histogram(self, array: np.ndarray) -> None:
        if self.largest > 0:
            counts, _ = np.histogram(np.abs(array), _BINS, (0.0, self.largest))
            self.counts += counts

    def divide_channels(self, factors: np.ndarray) -> None:
        """As if each channel had been divided by its positive factor; histograms start anew."""
        self.channel_largest = self.channel_largest / factors
        self.largest = float(self.channel_largest.max())
        self._sum = self._sum / factors
        self.counts[:] = 0

    def limit(self, method: str, percentile: float) -> float:
        """The magnitude that becomes 127; see :class:`~..quantize.QuantizeOptions`."""
        if self.largest == 0:
            return 1.0
        if not self.counts.any():
            return self.largest
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
    channel_axes: Mapping[str, int],
    frames: Iterable[Mapping[str, np.ndarray]],
    histograms: bool,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Statistics]:
    """Run the graph in ONNX Runtime and watch tensors: name to the axis of its channels.

    ``on_frame`` is told after each frame how many of all are done; with histograms every frame is
    seen twice.

    :raises InputError: if there are no frames.
    """
    import onnxruntime

    names = list(channel_axes)
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
    found = {name: Statistics(axis) for name, axis in channel_axes.items()}
    kept = list(frames)
    if not kept:
        raise InputError("there are no calibration frames: give a folder with pictures or a corpus")
    passes = (False, True) if histograms else (False,)
    for done, (second_pass, feeds) in enumerate(itertools.product(passes, kept), 1):
        values = {**feeds, **dict(_run(session, names, inputs, feeds))}
        for name in names:
            if second_pass:
                found[name].add_histogram(values[name])
            else:
                found[name].add(values[name])
        on_frame(done, len(passes) * len(kept))
    return found


def _run(
    session: onnxruntime.InferenceSession,
    names: list[str],
    inputs: set[str],
    feeds: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, np.ndarray]]:
    computed = [name for name in names if name not in inputs]
    return zip(computed, session.run(computed, dict(feeds)), strict=True)


def calibration_frames(
    source: Path,
    card: ModelCard,
    count: int = 64,
    topic: str | None = None,
    reader: ImageReader | None = None,
) -> list[dict[str, np.ndarray]]:
    """``count`` frames evenly spread over pictures, a generated corpus, a video or a bag.

    Of a corpus in the earlier layout the shards' ``rgb.npy`` is enough; ``topic``
    is a bag's colour topic, by default the only one. Frames are resized as at run time; the focal
    length is one image width, which no activation depends on. ``reader`` says how many bits of
    16-bit pictures count; a warning says where the high ones are never used.

    :raises InputError: if it is none of these, or a file cannot be read.
    """
    source, reader = Path(source), reader or ImageReader()
    if not source.exists():
        raise InputError(f"there is no {source}: give a folder of pictures, a video or a bag")
    folder = source.is_dir() and not is_bag(source)
    is_corpus = folder and ((source / DESCRIPTION_FILE).exists() or bool(shard_folders(source)))
    pictures = sorted(p for p in source.rglob("*") if has_picture_name(p)) if folder else []
    if is_corpus:
        images = _from_corpus(source, count)
    elif folder and pictures:
        images = _from_pictures(pictures, count, reader)
    elif folder:
        raise InputError(
            f"{source} holds no pictures and no corpus: give a folder with "
            f"{', '.join(PICTURE_SUFFIXES)}, one with corpus.json, a video or a bag"
        )
    else:
        return _graph_inputs(_from_stream(source, card, count, topic, reader), card)
    frames = _graph_inputs([_feeds(rgb_hwc, card) for rgb_hwc in images], card)
    if reader.bits.doubt:
        _log.warning("%s: %s", source, reader.bits.advice)
    return frames


def _graph_inputs(
    frames: list[dict[str, np.ndarray]], card: ModelCard
) -> list[dict[str, np.ndarray]]:
    """In the card's dtype; where a rule gives several sizes, at the most common one for all.

    What is observed per token can be put together for one size only.
    """
    sizes = [frame["image"].shape[1:3] for frame in frames]
    height, width = Counter(sizes).most_common(1)[0][0]
    for frame in frames:
        if frame["image"].shape[1:3] != (height, width):
            frame["image"] = prepare(frame["image"][0], width, height)[None]
        frame["image"] = frame["image"].astype(card.input.dtype, copy=False)
    return frames


def frames_from(
    source: Path | None,
    card: ModelCard,
    count: int,
    topic: str | None,
    reader: ImageReader | None = None,
) -> tuple[Sequence[Mapping[str, np.ndarray]], str]:
    """:func:`calibration_frames` that differ enough, and what they are, for the card.

    Without a ``source`` they are generated: for networks whose accuracy does not matter.

    :raises InputError: see :func:`calibration_frames` and :func:`check_variety`.
    """
    if source is None:
        feeds = reference_feeds(card, _GENERATED)
        frames = [
            {name: array[i : i + 1] for name, array in feeds.items()} for i in range(_GENERATED)
        ]
        return frames, "reference frames"
    frames = calibration_frames(source, card, count, topic, reader)
    check_variety(frames, str(source))
    return frames, real_path(source).name


def check_variety(frames: Sequence[Mapping[str, np.ndarray]], source: str) -> None:
    """Warn of few different frames: the drop measured on them says little about others.

    :raises InputError: if the frames show one picture or nothing: ranges taken from these are wrong
        for all others.
    """
    kinds = len(distinct(frames))
    if kinds < 2:
        what = "one and the same picture" if kinds else "flat (black, white or one colour)"
        raise InputError(
            f"the {len(frames)} calibration frames of {source} are {what}: give at least "
            f"{_ENOUGH} different frames of your robot"
        )
    if kinds < _ENOUGH:
        _log.warning(
            "only %d of the %d calibration frames of %s differ: give at least %d different ones, "
            "or the drop that is measured says little about other pictures",
            kinds,
            len(frames),
            source,
            _ENOUGH,
        )


def split_frames(
    frames: Sequence[Mapping[str, np.ndarray]],
) -> tuple[list[Mapping[str, np.ndarray]], list[Mapping[str, np.ndarray]]]:
    """Frames to calibrate on, and the last different ones to judge on, which are like none of them.

    A drop measured on what was calibrated on would be that of no other picture.
    """
    count = min(_JUDGED, len(frames) // 8)
    chosen = distinct(frames)
    judged = chosen[max(1, len(chosen) - count) :] if count else []
    shown = [thumbnail(frames[index]) for index in judged]
    kept = [
        frame
        for index, frame in enumerate(frames)
        if index not in judged and all(differ(thumbnail(frame), other) for other in shown)
    ]
    return kept, [frames[index] for index in judged]


def distinct(frames: Sequence[Mapping[str, np.ndarray]]) -> list[int]:
    """Indices of frames that show something, and something else than those before them."""
    kept: list[int] = []
    small: list[np.ndarray] = []
    for index, feeds in enumerate(frames):
        view_hwc = thumbnail(feeds)
        if view_hwc.std() > _FLAT and all(differ(view_hwc, other) for other in small):
            kept.append(index)
            small.append(view_hwc)
    return kept


def thumbnail(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 (16, 16, 3): what a frame shows, without its noise."""
    image_hwc = np.ascontiguousarray(feeds["image"][0])
    return resample(image_hwc, 16, 16).astype(np.float32)


def differ(one_hwc: np.ndarray, other_hwc: np.ndarray) -> bool:
    """Whether two thumbnails are of different pictures."""
    return float(np.abs(one_hwc - other_hwc).mean()) > _ALIKE


def _from_stream(
    source: Path, card: ModelCard, count: int, topic: str | None, reader: ImageReader
) -> list[dict[str, np.ndarray]]:
    """Reads once, whatever the length: where too many are kept, every second one goes."""
    stream = open_source(str(source), topic=topic, reader=reader)
    kept: list[dict[str, np.ndarray]] = []
    stride = 1
    try:
        for index, item in enumerate(stream):
            if index % stride:
                continue
            kept.append(_feeds(item.frame.rgb_hwc, card))
            if len(kept) == 4 * count:
                kept, stride = kept[::2], 2 * stride
        if not kept:
            reason = f": {stream.problems[0]}" if stream.problems else ""
            raise InputError(f"no frame of {source} could be read{reason}")
        for problem in stream.problems:
            _log.warning("%s: %s", source, problem)
    finally:
        stream.close()
    return [kept[index] for index in _spread(len(kept), count)]


def _feeds(rgb_hwc: np.ndarray, card: ModelCard) -> dict[str, np.ndarray]:
    """As at run time, in whole bytes; of a picture with windows the one in the middle."""
    image_hwc = network_input(rgb_hwc, replace(card.input, dtype="uint8"))
    if card.input.resize == "windows":
        top, left = ((side - card.input.height) // 2 for side in image_hwc.shape[:2])
        image_hwc = image_hwc[top : top + card.input.height, left : left + card.input.width]
    feeds = {"image": np.ascontiguousarray(image_hwc)[None]}
    if card.input.focal:
        feeds["focal_px"] = np.array([card.input.width], np.float32)
    return feeds


def _from_corpus(root: Path, count: int) -> Iterator[np.ndarray]:
    try:
        if not shard_folders(root):
            corpus = Corpus(root)
            yield from (corpus[index].rgb_hwc for index in _spread(len(corpus), count))
            return
        shards = [shard["rgb"] for shard in iterate_shards(root, ("rgb",), ())]
    except TrainingError as error:
        raise InputError(str(error)) from error
    ends = np.cumsum([len(array) for array in shards])
    for index in _spread(int(ends[-1]), count):
        which = int(np.searchsorted(ends, index, side="right"))
        yield np.asarray(shards[which][index - int(ends[which])])


def _from_pictures(paths: list[Path], count: int, reader: ImageReader) -> Iterator[np.ndarray]:
    for index in _spread(len(paths), count):
        try:
            yield reader.picture(read_file(paths[index]), apply_orientation=True)
        except InputError as error:
            raise InputError(
                f"{paths[index]} cannot be read as a picture ({error}): replace or remove it"
            ) from error


def _spread(total: int, count: int) -> list[int]:
    """``count`` indices evenly over ``total``, each once."""
    return [int(i) for i in np.unique(np.linspace(0, total - 1, min(count, total)).round())]
