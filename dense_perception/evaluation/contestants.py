"""Who answers the frames: models, published networks, recorded topics, and what must be beaten."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.labels import VOID
from dense_perception.core.prediction import GRAY_MAPS, DepthMap, Instances
from dense_perception.core.registry import (
    checkpoint_path,
    find_card,
    find_model,
    list_models,
)
from dense_perception.core.storage import file_sha256, user_path
from dense_perception.evaluation.baselines import CONSTANT, ROW_PRIOR, Prior, row_prior
from dense_perception.evaluation.segmentation import first_label, network_labeller
from dense_perception.evaluation.truth import TruthFrame
from dense_perception.imaging.resize import network_input, restore_depth, without_padding
from dense_perception.runtime.perceiver import Perceiver

TOPIC, NETWORK = "topic:", "network:"
_LONGEST_SIDE = 8192


@dataclass(frozen=True)
class RunOptions:
    """How models are run, as ``Perceiver.load`` takes it; ``weights`` and the views are of
    published networks."""

    backend: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    threads: int = 0
    trust_engine: bool = False
    hfov_deg: float = 60.0
    weights: Path | None = None
    multi_scale: bool = False
    flip: bool = False


@dataclass(frozen=True)
class Entry:
    """A contestant that can be opened in any process.

    ``kind`` is ``artefact``, ``checkpoint``, ``topic`` or ``baseline``; ``text`` what it is opened
    by. ``file`` and ``sha256`` are of its weights, None where there are none. ``classes`` are the
    names of its labels, ``things`` of its things.
    """

    name: str
    kind: str
    text: str
    options: RunOptions
    gives: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    file: str | None = None
    sha256: str | None = None
    precision: str | None = None
    backend: str | None = None
    device: str | None = None
    prior: Prior | None = None
    first_label: int = 1
    things: tuple[str, ...] = ()

    def identity(self) -> dict[str, object]:
        """What its answers depend on, as plain data."""
        options = {k: str(v) for k, v in asdict(self.options).items()}
        return {
            "kind": self.kind,
            "text": self.text,
            "sha256": self.sha256,
            "prior": repr(self.prior),
            **options,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What a contestant says of a frame, at any size; None where it says nothing.

    ``labels_hw`` are whole numbers from 0, ``confidence_hw`` uint8 in units of 1/255,
    ``normals_hwc`` unit vectors, ``gray`` the maps of ``GRAY_MAPS`` as uint8, ``instances`` the
    things at the frame's size. ``ms`` is its own time, NaN where it took none.
    """

    depth: DepthMap | None = None
    labels_hw: np.ndarray | None = None
    confidence_hw: np.ndarray | None = None
    normals_hwc: np.ndarray | None = None
    gray: Mapping[str, np.ndarray] = field(default_factory=dict)
    instances: Instances | None = None
    classes: tuple[str, ...] = ()
    ms: float = float("nan")
    intrinsics_assumed: bool = False


TIMED = 32
"""Frames that each worker answers with nothing beside it, and of which models are timed."""


class Contestant(Protocol):
    """Answers frames, one at a time."""

    def answer(self, truth: TruthFrame) -> Answer | None:
        """None where it has no answer to this frame.

        :raises DensePerceptionError: if it fails.
        """

    def close(self) -> None: ...


def resolve(text: str, options: RunOptions) -> Entry:
    """What a contestant is: ``MODEL``, ``MODEL@PRECISION``, ``network:MODEL``, ``topic:/NAME``.

    ``auto`` choices are made here, once, so that every worker runs the same.

    :raises DensePerceptionError: if it cannot be found or opened.
    """
    if text.startswith(TOPIC):
        name = text.removeprefix(TOPIC)
        if not name.startswith("/"):
            raise InputError(f"{text} names no topic: expected e.g. {TOPIC}/other/depth")
        return Entry(name, "topic", name, options, ("depth", "labels"))
    if text.startswith(NETWORK) or options.weights or options.multi_scale or options.flip:
        return _published(text.removeprefix(NETWORK), options)
    model, precision = with_precision(text)
    options = replace(options, precision=precision or options.precision)
    with _load(model, options) as perceiver:
        chosen, card = perceiver.selection, perceiver.card
        options = replace(options, backend=chosen.backend, precision=chosen.precision)
        file = find_model(model).files[chosen.precision]
        labelled = card.segmentation
        return Entry(
            f"{card.name} {chosen.precision}",
            "artefact",
            model,
            replace(options, trust_engine=True),
            card.outputs,
            tuple(labelled.label_set.labels) if labelled else (),
            str(file),
            file_sha256(file),
            chosen.precision,
            perceiver.backend.description,
            chosen.device,
            first_label=first_label(card) if labelled else 1,
            things=tuple(card.instances.label_set.labels) if card.instances else (),
        )


def baselines(prior: Prior) -> list[Entry]:
    """What must be beaten on the data that ``prior`` is of, as far as it has any truth for it."""
    found = []
    has_depth, has_labels = bool(np.isfinite(prior.rows).any()), prior.label != VOID
    if has_depth:
        found.append(Entry(ROW_PRIOR, "baseline", ROW_PRIOR, RunOptions(), ("depth",), prior=prior))
    if has_depth or has_labels:
        gives = [("depth", has_depth), ("labels", has_labels)]
        outputs = tuple(name for name, given in gives if given)
        found.append(Entry(CONSTANT, "baseline", CONSTANT, RunOptions(), outputs, prior=prior))
    return found


def open_contestant(entry: Entry) -> Contestant:
    """
    :raises DensePerceptionError: if it cannot be opened (any more).
    """
    if entry.kind == "topic":
        return RecordedTopic(entry.text)
    if entry.kind == "baseline":
        return Baseline(entry)
    if entry.kind == "checkpoint":
        return PublishedNetwork(entry)
    return ModelContestant(_load(entry.text, entry.options))


class ModelContestant:
    """An exported model."""

    def __init__(self, perceiver: Perceiver) -> None:
        self._perceiver = perceiver
        card, labelled = perceiver.card, perceiver.card.segmentation
        # Masks that overlap are made for eyes and figures alone, and take their time.
        self._with_masks = (*card.outputs, *card.on_request) if card.on_request else None
        self._to_time = TIMED
        self._classes = tuple(labelled.label_set.labels) if labelled else ()

    def answer(self, truth: TruthFrame) -> Answer:
        wanted = None if truth.instances_hw is None else self._with_masks
        (prediction,) = self._perceiver.perceive([truth.frame], wanted)
        ms = sum(prediction.timings_ms.values())
        if wanted is not None:
            ms = self._without_masks_ms(truth)
        labels, normals = prediction.labels, prediction.normals
        gray = {name: getattr(prediction, name) for name in GRAY_MAPS}
        return Answer(
            prediction.depth,
            None if labels is None else labels.values_hw,
            None if labels is None else labels.confidence_hw,
            None if normals is None else normals.values_hwc,
            {name: entry.values_hw for name, entry in gray.items() if entry is not None},
            prediction.instances,
            self._classes,
            ms,
            prediction.intrinsics_assumed,
        )

    def _without_masks_ms(self, truth: TruthFrame) -> float:
        """What the answer takes in use; NaN of more than :data:`TIMED`, which are enough."""
        if not self._to_time:
            return math.nan
        self._to_time -= 1
        (again,) = self._perceiver.perceive([truth.frame])
        return sum(again.timings_ms.values())

    def close(self) -> None:
        self._perceiver.close()


class RecordedTopic:
    """Another system's answers, as a bag has them."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def answer(self, truth: TruthFrame) -> Answer | None:
        found = truth.recorded.get(self._topic)
        if found is None:
            return None
        return Answer(found.depth, found.labels_hw, classes=found.classes or truth.classes)

    def close(self) -> None:
        return


class Baseline:
    """What knows the data on average and nothing of the picture."""

    def __init__(self, entry: Entry) -> None:
        assert entry.prior is not None
        self._prior, self._is_row = entry.prior, entry.text == ROW_PRIOR
        self._last: Answer | None = None

    def answer(self, truth: TruthFrame) -> Answer:
        """The same for all frames of a size."""
        depth_hw = None if truth.depth_m is None else truth.depth_m.shape
        labels_hw = None if truth.labels_hw is None or self._is_row else truth.labels_hw.shape
        last = self._last
        if (
            last is None
            or depth_hw != (None if last.depth is None else last.depth.values_hw.shape)
            or labels_hw != (None if last.labels_hw is None else last.labels_hw.shape)
            or truth.classes != last.classes
        ):
            last = self._last = Answer(
                None if depth_hw is None else DepthMap(self._depth(*depth_hw)),
                None if labels_hw is None else np.full(labels_hw, self._prior.label, np.int64),
                classes=truth.classes,
            )
        return last

    def _depth(self, height: int, width: int) -> np.ndarray:
        if self._is_row:
            return row_prior(self._prior, height, width)
        return np.full((height, width), self._prior.median_m, np.float32)

    def close(self) -> None:
        return


class PublishedNetwork:
    """A published network in PyTorch, fed as its authors evaluate it."""

    def __init__(self, entry: Entry) -> None:
        self._card, self._classes = find_card(entry.text), entry.classes
        options = entry.options
        if "labels" in entry.gives:
            self._label = network_labeller(
                self._card, options.weights, multi_scale=options.multi_scale, flip=options.flip
            )
        else:
            from dense_perception.nets.estimator import published_estimator

            self._estimate = published_estimator(self._card, options.weights, flip=options.flip)

    def answer(self, truth: TruthFrame) -> Answer:
        frame, start = truth.frame, time.perf_counter()
        if self._card.segmentation is not None:
            labels_hw = self._label(frame.rgb_hwc)
            ms = (time.perf_counter() - start) * 1e3
            return Answer(labels_hw=labels_hw, classes=self._classes, ms=ms)
        assert self._card.depth is not None
        spec = self._card.input
        depth_hw = self._estimate(network_input(frame.rgb_hwc, spec))
        shown_hw = without_padding(depth_hw, spec, frame.width, frame.height)
        restored_hw = restore_depth(shown_hw, frame.width, frame.height, spec.restore)
        ms = (time.perf_counter() - start) * 1e3
        return Answer(DepthMap(restored_hw, self._card.depth.kind), ms=ms)

    def close(self) -> None:
        return


def _published(model: str, options: RunOptions) -> Entry:
    card = find_card(model)
    path = options.weights or checkpoint_path(card)
    if card.segmentation is None and options.multi_scale:
        raise InputError(f"{card.name} gives depth: --multi-scale is for labels, leave it out")
    views = " ".join(
        word for word, on in (("multi-scale", options.multi_scale), ("flip", options.flip)) if on
    )
    return Entry(
        " ".join(word for word in (card.name, "network", views) if word),
        "checkpoint",
        card.name,
        options,
        ("depth",) if card.segmentation is None else ("labels",),
        () if card.segmentation is None else tuple(card.segmentation.label_set.labels),
        None if path is None else str(path),
        file_sha256(path) if path is not None and path.is_file() else None,
        "fp32",
        "pytorch",
        "cpu",
        first_label=1 if card.segmentation is None else first_label(card),
    )


def with_precision(text: str) -> tuple[str, str]:
    """``MODEL@PRECISION`` as the two; a model or file that has an @ in its name is itself."""
    model, at, precision = text.rpartition("@")
    if not at or text in list_models() or user_path(text).exists():
        return text, ""
    return model, precision


def _load(model: str, options: RunOptions) -> Perceiver:
    """Answers have the truth's size, whatever that is."""
    return Perceiver.load(
        model,
        backend=options.backend,
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        trust_engine=options.trust_engine,
        default_hfov_deg=options.hfov_deg,
        max_output_side=_LONGEST_SIDE,
    )
