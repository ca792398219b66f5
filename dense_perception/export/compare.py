"""The same bytes through every runtime installed: how far are the answers from the right ones?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dense_perception.backends.base import Backend
from dense_perception.backends.onnxruntime import OnnxRuntimeBackend
from dense_perception.backends.opening import installed_backends, open_backend
from dense_perception.backends.self_check import Arrays, answers, frames_of, worst_difference
from dense_perception.core.card import ModelCard
from dense_perception.core.difference import Difference
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.reference_frames import reference_feeds


def runtime_outputs(backend_name: str, path: Path, feeds: Arrays) -> dict[str, np.ndarray]:
    """What one runtime on the CPU says about the file, frame by frame.

    :raises BackendError: if the runtime is missing or refuses the graph.
    """
    return _outputs(open_backend(backend_name, path, device="cpu", threads=0), feeds)


def plain_outputs(path: Path, feeds: Arrays) -> dict[str, np.ndarray]:
    """What ONNX Runtime says node by node: as good an answer, rounded in other places.

    A quantised graph enlarges rounding, so it shows what runtimes may differ by, also those that
    are not installed here.
    """
    return _outputs(OnnxRuntimeBackend(OnnxFile.read(path), optimised=False), feeds)


def _outputs(backend: Backend, feeds: Arrays) -> dict[str, np.ndarray]:
    try:
        found = answers(backend, frames_of(feeds))
    finally:
        backend.close()
    return {name: np.concatenate([answer[name] for answer in found]) for name in found[0]}


def compare_runtimes(
    path: Path,
    want: Arrays,
    card: ModelCard,
    feeds: Arrays | None = None,
    *,
    on_refusal: Callable[[str, BackendError], None] | None = None,
    ask: Callable[[str, Path, Arrays], Arrays] | None = None,
) -> dict[str, Difference]:
    """Every installed runtime against ``want``, on the card's reference frames by default.

    Measured as the self-check measures: frame by frame, the worst output of the worst frame.
    ``on_refusal`` is told the name of a runtime other than ONNX Runtime that refuses the graph, and
    why; it is left out then. ``ask`` stands in for :func:`runtime_outputs`, such as one that
    remembers.

    :raises BackendError: if ONNX Runtime refuses the graph, or another one without ``on_refusal``.
    """
    feeds = feeds or card_feeds(card)
    ask = ask or runtime_outputs
    found = {}
    for name in installed_backends():
        try:
            found[name] = difference_of(card, ask(name, path, feeds), want)
        except BackendError as error:
            if on_refusal is None or name == "onnxruntime":
                raise
            on_refusal(name, error)
    return found


def difference_of(card: ModelCard, got: Arrays, want: Arrays) -> Difference:
    """The worst of all frames and outputs of two batches of answers."""
    return worst_difference(card, frames_of(got), frames_of(want))


def card_feeds(card: ModelCard) -> dict[str, np.ndarray]:
    """The reference frames the card's ``parity`` entry names (``frames``, ``seed``)."""
    parity = card.parity
    return reference_feeds(card, int(parity.get("frames", 3)), int(parity.get("seed", 0)))
