"""What is in a corpus: how deep, how complete, which classes, and what looks wrong with it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from dense_perception.core.errors import TrainingError
from dense_perception.core.printable import counted
from dense_perception.core.storage import file_sha256
from dense_perception.data.corpus import Corpus
from dense_perception.data.doubts import Evidence, doubts_of
from dense_perception.data.index import read_manifest
from dense_perception.data.sample import Sample

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
EDGES_M = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)
"""Bounds of the histogram's bins; the last bin has no upper bound."""
# The largest finite float16: the bit patterns of positive ones grow with their values.
_LARGEST_CODE = 0x7BFF
# What corpus.json says for programs, or what has a line of its own.
_TAKEN = {"schema", "name", "frames", "width", "height", "classes", "colours", "void"}


@dataclass(frozen=True)
class CorpusSummary:
    """Shares are of all pixels, from 0 to 1.

    ``sizes`` maps width x height, as a text, to a number of frames; ``width`` and ``height`` are 0
    where they differ. ``source`` is everything else that corpus.json says. ``depth_m`` maps
    quantiles, as texts, to metres; it is empty where no pixel has depth. ``histogram`` has a share
    for each bin that :data:`EDGES_M` begins. ``classes`` maps names to shares, the largest first;
    it is empty without labels. ``things`` counts the instances of each class over all frames, the
    most frequent first; it is empty where instances are not known. ``duplicates`` counts frames
    that look like an earlier one. ``doubts`` are sentences about what looks wrong.
    """

    name: str
    frames: int
    width: int
    height: int
    source: dict[str, Any]
    without_depth: float
    depth_m: dict[str, float]
    histogram: list[float]
    classes: dict[str, float]
    sizes: dict[str, int] = field(default_factory=dict)
    recordings: dict[str, int] = field(default_factory=dict)
    things: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    doubts: list[str] = field(default_factory=list)


def summarise(corpus: Corpus, *, verify: bool = False) -> CorpusSummary:
    """Look at every pixel of a corpus, with a progress bar on stderr.

    Frames that cannot be read are named among the doubts.

    :param verify: compare the shards with the hashes of the manifest.
    :raises TrainingError: if no frame can be read.
    """
    # A count for each bit pattern of float16 gives quantiles to its precision, which is 0.05 %.
    counts = np.zeros(1 << 16, np.int64)
    labels = np.zeros(1 << 8, np.int64)
    has_labels = False
    sizes: Counter[str] = Counter()
    recordings: Counter[str] = Counter()
    things: Counter[int] = Counter()
    evidence = Evidence(corpus.name, len(corpus.classes))
    for index in tqdm(range(len(corpus)), unit="frame", disable=None, file=sys.stderr):
        try:
            sample = corpus[index]
        except TrainingError as error:
            evidence.add_unreadable(str(error))
            continue
        evidence.add(sample)
        sizes[f"{sample.intrinsics.width}x{sample.intrinsics.height}"] += 1
        recordings[sample.recording] += bool(sample.recording)
        counts += _float16_counts(sample)
        if sample.labels_hw is not None:
            has_labels = True
            labels += np.bincount(sample.labels_hw.ravel(), minlength=len(labels))
        things.update(sample.instance_labels.values())
    pixels = int(counts.sum())
    if not pixels:
        raise TrainingError(f"no frame of {corpus.root} can be read: {evidence.unreadable[0]}")
    metres = np.arange(1, _LARGEST_CODE + 1, dtype=np.uint16).view(np.float16).astype(np.float64)
    known = counts[1 : _LARGEST_CODE + 1]
    bins, _ = np.histogram(metres, [*EDGES_M, np.inf], weights=known)
    hashes = _changed_shards(corpus) if verify else []
    return CorpusSummary(
        name=corpus.name,
        frames=len(corpus),
        width=corpus.width,
        height=corpus.height,
        source={key: v for key, v in corpus.description.items() if key not in _TAKEN},
        without_depth=1 - int(known.sum()) / pixels,
        depth_m=_quantiles(metres, known),
        histogram=[float(count) / pixels for count in bins],
        classes=_classes(corpus, labels) if has_labels else {},
        sizes=dict(sizes.most_common()),
        recordings={name: count for name, count in recordings.items() if name},
        things=_named_things(corpus, things),
        duplicates=evidence.duplicates(),
        doubts=[*hashes, *doubts_of(evidence)],
    )


def differing_classes(corpora: Sequence[Corpus]) -> list[str]:
    """Corpora whose lists of classes differ from the first one's, in words."""
    named = [corpus for corpus in corpora if corpus.classes]
    found = []
    for corpus in named[1:]:
        first = named[0].classes
        if corpus.classes != first:
            pairs = zip(first, corpus.classes, strict=False)
            at = next((k for k, (a, b) in enumerate(pairs) if a != b), None)
            where = (
                f"label {at + 1} is {corpus.classes[at]!r} instead of {first[at]!r}"
                if at is not None
                else f"{counted(len(corpus.classes), 'class')} instead of {len(first)}"
            )
            found.append(
                f"{corpus.name} has another list of classes than {named[0].name} ({where}): they "
                "cannot be trained on together; relabel one"
            )
    return found


def _float16_counts(sample: Sample) -> np.ndarray:
    with np.errstate(over="ignore"):
        codes = np.asarray(sample.depth_m).astype(np.float16).view(np.uint16)
    return np.bincount(codes.ravel(), minlength=1 << 16)


def _changed_shards(corpus: Corpus) -> list[str]:
    manifest = read_manifest(corpus.root)
    if not manifest:
        return ["there is no manifest.json, so nothing is known about what the shards should be"]
    return [
        f"{name} is not what manifest.json says (SHA-256): it was changed or damaged"
        for name, digest in manifest.items()
        if not (corpus.root / name).is_file() or file_sha256(corpus.root / name) != digest
    ]


def _quantiles(metres: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    total = int(counts.sum())
    if not total:
        return {}
    reached = np.cumsum(counts)
    places = np.searchsorted(reached, [quantile * total for quantile in QUANTILES])
    return {f"{q:g}": float(metres[place]) for q, place in zip(QUANTILES, places, strict=True)}


def _classes(corpus: Corpus, counts: np.ndarray) -> dict[str, float]:
    shares = {
        _class_name(corpus, int(label)): float(counts[label] / counts.sum())
        for label in np.flatnonzero(counts)
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _named_things(corpus: Corpus, things: Counter[int]) -> dict[str, int]:
    """Those of class 0 are named as what they are to training: ignored."""
    return {
        _class_name(corpus, label) if label else "(ignored)": count
        for label, count in things.most_common()
    }


def _class_name(corpus: Corpus, label: int) -> str:
    given = corpus.description.get("classes") or []
    none = "none" if corpus.description.get("void") or not given else str(given[0])
    names = [none, *corpus.classes]
    return names[label] if label < len(names) else f"class {label}"
