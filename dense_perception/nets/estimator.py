"""Published depth networks in PyTorch, as their authors evaluate them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import CardError
from dense_perception.nets.networks import published_network
from dense_perception.nets.zoo import normalisation


def published_estimator(
    card: ModelCard, checkpoint: Path | None, *, flip: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """Depth (H, W) float32 of an HxWx3 picture at the network's size, of the card's kind.

    The picture has the card's dtype, levels 0 to 255. With ``flip`` the depth of the mirror image,
    turned back, is averaged in.

    :raises ArtefactError: if the checkpoint is missing or does not fit.
    :raises CardError: if the network gives no depth of a picture alone.
    """
    network, _, _ = published_network(card, checkpoint)
    if card.depth is None or getattr(network, "needs_focal", False):
        raise CardError(
            f"{card.name} gives no depth of a picture alone in PyTorch: export it, and evaluate "
            "the exported model"
        )
    mean, std = (torch.tensor(v)[:, None, None] for v in normalisation(card.network))

    def estimate(image_hwc: np.ndarray) -> np.ndarray:
        picture = torch.from_numpy(np.ascontiguousarray(image_hwc)).permute(2, 0, 1)
        image_nchw = ((picture.float() / 255 - mean) / std)[None]
        with torch.inference_mode():
            depth_nhw = network(image_nchw)["depth"]
            if flip:
                depth_nhw = (depth_nhw + network(image_nchw.flip(3))["depth"].flip(2)) / 2
        return np.ascontiguousarray(depth_nhw[0].numpy(), np.float32)

    return estimate
