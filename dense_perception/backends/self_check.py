"""No runtime or engine is trusted before it agrees with the reference on the card's frames.

The reference is ONNX Runtime on the CPU with the same file. What was found is remembered under the
engine's identity, so that the next start costs nothing.
"""

from __future__ import annotations

from pathlib import Path

from dense_perception.backends.base import Backend
from dense_perception.backends.engine_cache import remember_check, remembered_check
from dense_perception.backends.onnxruntime import OnnxRuntimeBackend
from dense_perception.core.card import ModelCard
from dense_perception.core.difference import Difference
from dense_perception.core.errors import EngineRefusedError
from dense_perception.core.reference_frames import reference_feeds

# For files whose card states none.
_TOLERANCES = {
    "fp32": Difference(1e-3, 1e-4),
    "fp16": Difference(0.02, 0.002),
    "int8": Difference(0.05, 0.005),
}


def tolerance(card: ModelCard) -> Difference:
    """How far a runtime may be from ONNX Runtime with this file."""
    default = _TOLERANCES[card.precision]
    return Difference(
        float(card.parity.get("max_of_range", default.max_of_range)),
        float(card.parity.get("mean_of_range", default.mean_of_range)),
    )


def self_check(card: ModelCard, path: Path, backend: Backend, identity: str) -> Difference:
    """Run the card's reference frames through ``backend`` and through the reference.

    ``identity`` names exactly what is checked: file, runtime, version, device. Compared is the
    depth, or the confidence: labels of two equally good classes differ by rounding.

    :raises EngineRefusedError: with the measured difference, if it is outside the card's tolerance.
    :raises BackendError: if either of them fails.
    """
    allowed = tolerance(card)
    known = remembered_check(identity)
    try:
        found = Difference(float(known["max_of_range"]), float(known["mean_of_range"]))
    except (KeyError, TypeError, ValueError):
        found = _measure(card, path, backend)
        remember_check(
            identity,
            {
                "backend": backend.description,
                "max_of_range": found.max_of_range,
                "mean_of_range": found.mean_of_range,
            },
        )
    if not found.within(allowed):
        raise EngineRefusedError(
            f"{backend.description} is refused: on the reference frames of {card.name} "
            f"{card.precision} it differs from ONNX Runtime by {found.max_of_range:.1e} of the "
            f"range (mean {found.mean_of_range:.1e}), allowed are {allowed.max_of_range:.1e} "
            f"(mean {allowed.mean_of_range:.1e}): use another version of it or another precision"
        )
    return found


def _measure(card: ModelCard, path: Path, backend: Backend) -> Difference:
    output = "depth" if card.depth is not None else "confidence"
    frames, seed = int(card.parity.get("frames", 3)), int(card.parity.get("seed", 0))
    feeds = reference_feeds(card, frames, seed)
    reference = OnnxRuntimeBackend(path)
    worst = Difference(0.0, 0.0)
    try:
        for index in range(frames):
            one = {name: array[index : index + 1].copy() for name, array in feeds.items()}
            got = backend.infer(one)[output].copy()
            between = Difference.between(got, reference.infer(one)[output])
            worst = Difference(
                max(worst.max_of_range, between.max_of_range),
                max(worst.mean_of_range, between.mean_of_range),
            )
    finally:
        reference.close()
    return worst
