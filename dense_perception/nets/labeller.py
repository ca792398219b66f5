"""Published label networks in PyTorch, as their authors evaluate them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from dense_perception.core.card import ModelCard
from dense_perception.nets.networks import published_network
from dense_perception.nets.sliding_window import averaged_probabilities
from dense_perception.nets.zoo import normalisation


def published_labeller(
    card: ModelCard, checkpoint: Path | None, *, flip: bool
) -> Callable[[Sequence[np.ndarray], tuple[int, int]], np.ndarray]:
    """Labels of a picture's views: HxWx3 ``uint8`` RGB at several scales, and (height, width).

    The card's windows slide over each view and its mirror image; probabilities are averaged.

    :raises ArtefactError: if the checkpoint is missing or does not fit.
    """
    assert card.segmentation is not None
    network, _, _ = published_network(card, checkpoint)
    mean, std = (torch.tensor(v)[:, None, None] for v in normalisation(card.network))
    window, stride = card.segmentation.window, card.segmentation.stride
    if not window and not card.input.free:
        window = min(card.input.height, card.input.width)
        stride = 2 * window // 3

    def label(views: Sequence[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
        probabilities = averaged_probabilities(
            network,
            [
                ((torch.from_numpy(view_hwc).permute(2, 0, 1) / 255 - mean) / std)[None]
                for view_hwc in views
            ],
            size_hw,
            window=window,
            stride=stride,
            # Sides that are made multiples come from mmsegmentation, which crops small views.
            smaller=card.input.multiple > 1,
            flip=flip,
            mode="bicubic" if card.input.interpolation == "cubic" else "bilinear",
        )
        return probabilities[0].argmax(0).numpy()

    return label
