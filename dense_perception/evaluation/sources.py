"""Opens what models are judged by: bags, corpora, public data sets, folders of pairs."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dense_perception.core.camera import Frame
from dense_perception.core.errors import DensePerceptionError, InputError, TrainingError
from dense_perception.core.storage import user_path
from dense_perception.data.corpus import Corpus, evenly
from dense_perception.data.folder_pairs import FolderPairs
from dense_perception.data.sample import NamedFrames, Sample
from dense_perception.data.sources import open_frames, problems_of
from dense_perception.evaluation.bag_truth import BagTruth
from dense_perception.evaluation.pictures import PICTURES, LabelledPictures
from dense_perception.evaluation.truth import (
    PART_FRAMES,
    PARTS,
    Part,
    TruthFrame,
    TruthOptions,
    TruthSource,
    counted_labels,
    known_depth,
)
from dense_perception.media.bag_reader import is_bag
from dense_perception.media.problems import Problems


@dataclass(frozen=True)
class SourceName:
    """A source as the user gives it, and the name it has in the report, unique there."""

    text: str
    name: str


def name_sources(texts: Sequence[str]) -> list[SourceName]:
    """A short, unique name for each: of its file or folder, numbered where they are equal.

    :raises InputError: if the same data is named twice: it would count double.
    """
    named: dict[str, SourceName] = {}
    places: set[str] = set()
    for text in texts:
        place = str(user_path(text).resolve()) if user_path(text).exists() else text
        if place in places:
            raise InputError(f"--data {text} is given twice: each source counts once")
        places.add(place)
        place_of = text.removeprefix(PICTURES).partition(":")
        lies = place_of[0] if text.startswith(PICTURES) else place_of[2] or text
        plain = user_path(lies).resolve().name.partition(".")[0]
        name = base = re.sub(r"[^A-Za-z0-9_-]+", "_", plain)[:60] or "data"
        number = 2
        while name in named:
            name, number = f"{base}_{number}", number + 1
        named[name] = SourceName(text, name)
    return list(named.values())


def open_source(source: SourceName, options: TruthOptions) -> TruthSource:
    """
    :raises InputError: if it is no data that can be read, or has no truth.
    """
    path = user_path(source.text)
    if path.exists() and is_bag(path):
        return BagTruth(path, source.name, options)
    if source.text.startswith(PICTURES):
        reader = options.reader()
        pictures = LabelledPictures(source.text, options.first_label, reader)
        notes = [pictures.left_out] if pictures.left_out else []
        return FramesTruth(pictures, source, options, notes)
    try:
        frames = open_frames(source.text, unit_m=options.unit_m)
    except TrainingError as error:  # a damaged corpus
        raise InputError(str(error)) from error
    return FramesTruth(frames, source, options, problems_of(frames))


def fingerprint(source: SourceName) -> str:
    """Changes when the data may have changed: of the sizes and times of its files, also of those in
    folders below, but for what evaluations wrote there."""
    named = [source.text, *source.text.split(":")[1:]]
    state = hashlib.sha256(source.text.encode())
    for path in (user_path(text) for text in named if text):
        if not path.exists():
            continue
        state.update(str(path.resolve()).encode())
        for file in _files(path) if path.is_dir() else [path]:
            with suppress(OSError):  # a link to nothing; whoever reads it says so
                status = file.stat()
                state.update(os.fsencode(f"{file} {status.st_size} {status.st_mtime_ns}\n"))
    return state.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """All files below a folder in a fixed order, each folder once, whatever links lead to it."""
    seen: set[Path] = set()
    for place, folders, files in os.walk(path, followlinks=True):
        folder = Path(place)
        if folder.resolve() in seen or (folder != path and _is_evaluation(folder)):
            folders.clear()
            continue
        seen.add(folder.resolve())
        folders.sort()
        yield from (folder / name for name in sorted(files))


def _is_evaluation(folder: Path) -> bool:
    return next(folder.glob(f"{PARTS}/*/*.jsonl"), None) is not None


class FramesTruth:
    """The frames of a corpus, a public data set or a folder of pairs."""

    def __init__(
        self,
        frames: NamedFrames,
        source: SourceName,
        options: TruthOptions,
        notes: Sequence[str] = (),
    ) -> None:
        self.name, self.path = source.name, source.text
        self.kind = _kind(frames)
        self.classes = tuple(frames.classes)
        self.unmatched = self.empty = 0
        self._frames = frames
        self.problems = Problems()
        self.notes = list(notes)
        self._indices = evenly(len(frames), options.limit or len(frames))

    def close(self) -> None:
        return

    def why_none(self) -> str:
        return f"none of its {len(self._indices)} frames has depth, labels or numbers of things"

    def parts(self) -> list[Part]:
        count = len(self._indices)
        starts = range(0, count, PART_FRAMES)
        stops = [min(start + PART_FRAMES, count) for start in starts]
        return [
            Part(number, stop - start, start, stop)
            for number, (start, stop) in enumerate(zip(starts, stops, strict=True))
        ]

    def frames(self, part: Part) -> Generator[TruthFrame]:
        self.problems, self.empty = Problems(), 0
        for index in self._indices[part.start : part.stop]:
            key = self._frames.keys[index]
            try:
                frame = self._frame(self._frames[index], key)
            except DensePerceptionError as error:
                self.problems.at(key, error)
                continue
            if frame is None:
                self.empty += 1
            else:
                yield frame

    def _frame(self, sample: Sample, key: str) -> TruthFrame | None:
        depth_m = known_depth(np.asarray(sample.depth_m, np.float32))
        labels_hw = counted_labels(sample.labels_hw)
        if depth_m is None and labels_hw is None and sample.instances_hw is None:
            return None
        frame = Frame(
            np.ascontiguousarray(sample.rgb_hwc), sample.stamp_ns or 0, "", sample.intrinsics
        )
        return TruthFrame(
            self._recording(sample, key),
            key,
            frame,
            depth_m,
            labels_hw,
            self.classes,
            sample.camera_7,
            instances_hw=sample.instances_hw,
            instance_labels=sample.instance_labels,
        )

    def _recording(self, sample: Sample, key: str) -> str:
        """What is drawn for intervals: a recording, a room, or a picture that stands alone."""
        if sample.recording:
            same = sample.recording in (self.name, self._frames.name)
            return self.name if same else f"{self.name}/{sample.recording}"
        if sample.scene is not None:
            return f"{self.name}/scene {sample.scene}"
        return f"{self.name}/{key}"


def _kind(frames: NamedFrames) -> str:
    if isinstance(frames, LabelledPictures):
        return "pictures"
    if isinstance(frames, Corpus):
        return "corpus"
    return "folder" if isinstance(frames, FolderPairs) else "data set"
