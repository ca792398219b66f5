"""Published label networks in PyTorch, as their authors evaluate them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from dense_perception.core.card import ModelCard
from dense_perception.nets.networks import published_network
from dense_perception.nets.sliding_window import SCALES, multi_scale_probabilities
from dense_perception.nets.zoo import normalisation


def multi_scale_labeller(
    card: ModelCard, checkpoint: Path | None, *, multi_scale: bool, flip: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """The published network in PyTorch, as its authors evaluate it.

    The short side is scaled to the card's window, the aspect kept; windows slide over each scale
    and mirror image; probabilities are averaged. A card without a window slides its input size.

    :raises ArtefactError: if the checkpoint is missing or does not fit.
    """
    assert card.segmentation is not None
    network, _, _ = published_network(card, checkpoint)
    mean, std = (torch.tensor(v)[:, None, None] for v in normalisation(card.network))
    window = card.segmentation.window or min(card.input.height, card.input.width)
    stride = card.segmentation.stride or 2 * window // 3
    scales = SCALES if multi_scale else (1.0,)

    def label(rgb_hwc: np.ndarray) -> np.ndarray:
        height, width = rgb_hwc.shape[:2]
        short = min(height, width)
        size = (max(window, width * window // short), max(window, height * window // short))
        scaled_hwc = cv2.resize(rgb_hwc, size, interpolation=cv2.INTER_LINEAR)
        image_chw = (torch.from_numpy(scaled_hwc).permute(2, 0, 1) / 255 - mean) / std
        probabilities = multi_scale_probabilities(
            network,
            image_chw[None],
            window,
            stride,
            scales=scales,
            flip=flip,
            size_hw=(height, width),
        )
        return probabilities[0].argmax(0).numpy()

    return label
