"""DPT of the ``transformers`` library in fp32 PyTorch: what `benchmark model` compares with.

It lies here because no room above the networks but export and training may import PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import DPTConfig


def plain_dpt(
    side: int, threads: int = 0, *, large: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """A call from a ``side`` x ``side`` uint8 RGB image to its depth: DPT-Base or -Large, random
    weights.

    ``side``: the square input. ``threads`` 0 means all usable cores.
    """
    from transformers import DPTConfig

    config = DPTConfig(
        image_size=side,
        hidden_size=1024 if large else 768,
        num_hidden_layers=24 if large else 12,
        num_attention_heads=16 if large else 12,
        intermediate_size=4096 if large else 3072,
        backbone_out_indices=[5, 11, 17, 23] if large else [2, 5, 8, 11],
        neck_hidden_sizes=[256, 512, 1024, 1024] if large else [96, 192, 384, 768],
        readout_type="project",
    )
    return _call(config, threads)


def hybrid_dpt(
    side: int,
    threads: int = 0,
    *,
    dim: int = 768,
    layers: int = 12,
    heads: int = 12,
    features: int = 256,
) -> Callable[[np.ndarray], np.ndarray]:
    """A call from a ``side`` x ``side`` uint8 RGB image to its depth: DPT-Hybrid, random weights.

    ``side``: the square input; ``dim``, ``layers``, ``heads``: the transformer (DPT-Hybrid's own by
    default); ``features``: the decoder's channels. ``threads`` 0 means all usable cores.
    """
    from transformers import DPTConfig

    config = DPTConfig(
        is_hybrid=True,
        image_size=side,
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * dim if dim == 768 else 2 * dim,
        # The last two taps; the first two maps come from the convolutional stem.
        backbone_out_indices=[0, 1, 3 * layers // 4 - 1, layers - 1],
        neck_hidden_sizes=[256, 512, dim, dim],
        reassemble_factors=[1, 1, 1, 0.5],
        neck_ignore_stages=[0, 1],
        fusion_hidden_size=features,
        readout_type="project",
    )
    return _call(config, threads)


def _call(config: DPTConfig, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import torch
    from transformers import DPTForDepthEstimation

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    torch.set_num_threads(threads or usable or torch.get_num_threads())
    network = DPTForDepthEstimation(config).eval()

    def call(image_hwc: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(image_hwc).permute(2, 0, 1)[None].float()
            pixels = pixels.mul_(1 / 127.5).sub_(1)
            depth_hw: np.ndarray = network(pixels).predicted_depth[0].numpy()
        return depth_hw

    return call
