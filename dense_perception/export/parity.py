"""The same bytes through eager PyTorch and every runtime installed: how far apart are they?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dense_perception.backends.select import installed_backends, open_backend
from dense_perception.core.card import ModelCard
from dense_perception.core.difference import Difference
from dense_perception.core.reference_frames import reference_feeds

Arrays = Mapping[str, np.ndarray]


def torch_outputs(network: nn.Module, card: ModelCard, feeds: Arrays) -> dict[str, np.ndarray]:
    """What eager fp32 PyTorch says, through the same pre- and post-processing as the file."""
    from dense_perception.export.graph import Corridor, output_names

    corridor = Corridor(network, card).eval()
    with torch.no_grad():
        outputs = corridor(*(torch.from_numpy(feeds[name]) for name in feed_names(card)))
    return {name: output.numpy() for name, output in zip(output_names(card), outputs, strict=True)}


def runtime_outputs(backend_name: str, path: Path, feeds: Arrays) -> dict[str, np.ndarray]:
    """What one runtime on the CPU says about the file.

    :raises BackendError: if the runtime is missing or refuses the graph.
    """
    backend = open_backend(backend_name, path, device="cpu", threads=0)
    try:
        return {name: array.copy() for name, array in backend.infer(feeds).items()}
    finally:
        backend.close()


def compare_runtimes(
    path: Path, want: Arrays, card: ModelCard, feeds: Arrays | None = None
) -> dict[str, Difference]:
    """Every installed runtime against ``want``, on the card's reference frames by default.

    Of several outputs the largest difference counts; the confidence speaks for the labels: those
    of two equally good classes differ by rounding.
    """
    feeds = feeds or card_feeds(card)
    compared = ["confidence" if name == "labels" else name for name in card.outputs]
    found = {}
    for backend_name in installed_backends():
        got = runtime_outputs(backend_name, path, feeds)
        differences = [Difference.between(got[name], want[name]) for name in compared]
        found[backend_name] = Difference(
            max(difference.max_of_range for difference in differences),
            max(difference.mean_of_range for difference in differences),
        )
    return found


def card_feeds(card: ModelCard) -> dict[str, np.ndarray]:
    """The reference frames the card's ``parity`` entry names (``frames``, ``seed``)."""
    parity = card.parity
    return reference_feeds(card, int(parity.get("frames", 3)), int(parity.get("seed", 0)))


def feed_names(card: ModelCard) -> Sequence[str]:
    return ("image", "focal_px") if card.input.focal else ("image",)
