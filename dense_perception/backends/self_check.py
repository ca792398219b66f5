"""No runtime or engine is trusted before it agrees with the reference on the card's frames.

The reference is ONNX Runtime on the CPU with the same file. What was found is remembered under the
engine's identity, so that the next start costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dense_perception.backends.base import Backend, Infer
from dense_perception.backends.engine_cache import engines_dir, remember_check, remembered_check
from dense_perception.backends.onnxruntime import OnnxRuntimeBackend
from dense_perception.core.card import ModelCard
from dense_perception.core.difference import Difference, tolerance
from dense_perception.core.errors import BackendError, EngineRefusedError
from dense_perception.core.instance_lists import IDS, list_difference
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.reference_frames import reference_feeds

_log = logging.getLogger(__name__)
Arrays = Mapping[str, np.ndarray]


def self_check(card: ModelCard, file: OnnxFile, backend: Backend, identity: str) -> Difference:
    """Run the card's reference frames through ``backend`` and through the reference.

    ``identity`` names exactly what is checked: file, runtime, version, device.

    :raises EngineRefusedError: with the measured difference, if it is outside the card's tolerance,
        or with the reason, if ``backend`` fails on them.
    :raises BackendError: if the reference fails.
    """
    found = remembered_check(identity)
    if found is None:
        count, seed = int(card.parity.get("frames", 3)), int(card.parity.get("seed", 0))
        frames = frames_of(reference_feeds(card, count, seed))
        try:
            got = answers(backend, frames)
        except BackendError as error:
            raise EngineRefusedError(
                f"{backend.description} is refused: it fails on the reference frames of "
                f"{card.name} {card.precision}: {error}"
            ) from error
        found = _measure(card, file, frames, got)
        _remember(identity, backend.description, found)
    _judge(card, backend.description, "", found)
    return found


def check_sizes(card: ModelCard, backend: Backend) -> None:
    """Have ``backend`` check each size that it compiles for later, before its first answer.

    One reference frame of that size, compared as :func:`self_check` compares and remembered alike.
    It takes one load of the reference and one frame in both, once per size.
    """

    def check(file: OnnxFile, identity: str, batch_hw: tuple[int, int, int], infer: Infer) -> None:
        batch, height, width = batch_hw
        sized = replace(card, input=replace(card.input, height=height, width=width))
        found = remembered_check(identity)
        if found is None:
            (frame,) = frames_of(reference_feeds(sized, 1, int(card.parity.get("seed", 0))))
            got = infer({name: array.repeat(batch, axis=0) for name, array in frame.items()})
            first = {name: array[:1].copy() for name, array in got.items()}
            found = _measure(sized, file, [frame], [first])
            _remember(identity, f"{backend.description}, {width}x{height}", found)
        _judge(card, backend.description, f" at {width}x{height}", found)

    backend.size_check = check


def frames_of(arrays: Arrays) -> list[dict[str, np.ndarray]]:
    """A batch by name as its frames, each a batch of one."""
    count = len(next(iter(arrays.values())))
    return [{name: array[i : i + 1].copy() for name, array in arrays.items()} for i in range(count)]


def answers(backend: Backend, frames: Iterable[Arrays]) -> list[dict[str, np.ndarray]]:
    """Every output for each frame by itself: how a runtime rounds may depend on the batch.

    :raises BackendError: if the runtime fails.
    """
    return [
        {name: array.copy() for name, array in backend.infer(frame).items()} for frame in frames
    ]


def worst_difference(card: ModelCard, got: Sequence[Arrays], want: Sequence[Arrays]) -> Difference:
    """Of all frames and outputs the largest; what a tolerance is made of and held against.

    The confidence speaks for the labels: those of two equally good classes differ by rounding.
    Lists of things are matched by overlap: :func:`.list_difference`.
    """
    scored = card.segmentation is not None and card.segmentation.scores
    certainty = "scores" if scored else "confidence"
    maps = [name for name in card.outputs if name not in ("instances", IDS)]
    compared = [certainty if name == "labels" else name for name in maps]
    found = [
        Difference.between(one[name], other[name])
        for one, other in zip(got, want, strict=True)
        for name in compared
    ]
    if card.instances is not None:
        found += [
            list_difference(one, other, card.instances, card.input)
            for one, other in zip(got, want, strict=True)
        ]
    return Difference.worst(found)


def _remember(identity: str, description: str, found: Difference) -> None:
    if not remember_check(identity, description, found):
        _log.warning(
            "that %s was compared with ONNX Runtime is not kept in %s: each start compares it "
            "again; free space there or make it writable for you alone",
            description,
            engines_dir(),
        )


def _judge(card: ModelCard, description: str, where: str, found: Difference) -> None:
    allowed = tolerance(card)
    if not found.within(allowed):
        raise EngineRefusedError(
            f"{description} is refused: on the reference frames of {card.name} "
            f"{card.precision}{where} it differs from ONNX Runtime by {found.max_of_range:.1e} of "
            f"the range (mean {found.mean_of_range:.1e}), allowed are {allowed.max_of_range:.1e} "
            f"(mean {allowed.mean_of_range:.1e}): use another version of it or another precision"
        )


def _measure(
    card: ModelCard, file: OnnxFile, frames: Sequence[Arrays], got: Sequence[Arrays]
) -> Difference:
    reference = OnnxRuntimeBackend(file)
    try:
        return worst_difference(card, got, answers(reference, frames))
    finally:
        reference.close()
