"""DPT-Hybrid of the ``transformers`` library in fp32 PyTorch: the yardstick of the benchmark."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from dense_perception.imaging.resize import prepare, restore


def hybrid_dpt(
    side: int,
    rgb_hwc: np.ndarray,
    threads: int = 0,
    *,
    dim: int = 768,
    layers: int = 12,
    heads: int = 12,
    features: int = 256,
) -> Callable[[], np.ndarray]:
    """A call that takes ``rgb_hwc`` to a depth map of its size with random weights.

    ``side``: the square input; ``dim``, ``layers``, ``heads``: the transformer (DPT-Hybrid's own by
    default); ``features``: the decoder's channels. ``threads`` 0 means all usable cores.
    """
    import torch
    from transformers import DPTConfig, DPTForDepthEstimation

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    torch.set_num_threads(threads or usable or torch.get_num_threads())
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
    network = DPTForDepthEstimation(config).eval()
    height, width = rgb_hwc.shape[:2]

    def call() -> np.ndarray:
        image_hwc = prepare(rgb_hwc, side, side)
        with torch.inference_mode():
            pixels = torch.from_numpy(image_hwc).permute(2, 0, 1)[None].float()
            pixels = pixels.mul_(1 / 127.5).sub_(1)
            depth_hw = network(pixels).predicted_depth[0].numpy()
        return restore(depth_hw, width, height)

    return call
