"""Small random models of ``transformers``, saved in the layout of the published files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForSemanticSegmentation,
)

DEPTH_ANYTHING = {
    "family": "depth_anything",
    "variant": "v2_small",
    "height": 56,
    "width": 56,
    "dim": 24,
    "heads": 3,
    "taps": [0, 1, 3, 4],
    "channels": [8, 12, 16, 24],
    "features": 16,
}
DPT_SEGMENTATION = {
    "family": "dpt",
    "variant": "base",
    "height": 64,
    "width": 64,
    "dim": 48,
    "heads": 3,
    "mlp_ratio": 2.0,
    "taps": [0, 1, 2, 3],
    "channels": [16, 24, 32, 40],
    "features": 16,
    "classes": 5,
}


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Every parameter and buffer random, also those that start at zero or one."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if "running_var" in name:
            tensor.uniform_(0.5, 2.0)
        elif tensor.ndim <= 1:
            centre = 1.0 if name.endswith(("weight", "lambda1")) else 0.0
            tensor.copy_(centre + 0.2 * torch.randn_like(tensor))
        elif "token" in name or "position" in name:
            tensor.normal_(std=0.3)
        else:
            tensor.normal_(std=tensor[0].numel() ** -0.5)


def depth_anything(max_depth_m: float = 0.0) -> DepthAnythingForDepthEstimation:
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=24,
        num_hidden_layers=5,
        num_attention_heads=3,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 4, 5],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    model = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=24,
            neck_hidden_sizes=[8, 12, 16, 24],
            fusion_hidden_size=16,
            head_hidden_size=32,
            patch_size=14,
            depth_estimation_type="metric" if max_depth_m else "relative",
            max_depth=int(max_depth_m) or 1,
        )
    ).eval()
    randomise(model)
    return model


def dpt_segmentation() -> DPTForSemanticSegmentation:
    torch.manual_seed(0)
    model = DPTForSemanticSegmentation(
        DPTConfig(
            hidden_size=48,
            num_hidden_layers=4,
            num_attention_heads=3,
            intermediate_size=96,
            layer_norm_eps=1e-6,
            image_size=64,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[16, 24, 32, 40],
            fusion_hidden_size=16,
            num_labels=5,
            use_batch_norm_in_fusion_residual=True,
            use_bias_in_fusion_residual=False,
        )
    ).eval()
    randomise(model)
    return model


def save(model: nn.Module, folder: Path) -> Path:
    """The file as on the hub; ``transformers`` writes the hub's names, not its own."""
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def image(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3))
