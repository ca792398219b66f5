"""Small random DPTs of ``transformers``, the independent reference, and their weights as ours."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from transformers import DPTConfig, DPTForDepthEstimation

WIDTHS = (16, 24, 32, 40)


def reference(
    image_size: int, hybrid: bool = False, readout: str = "project"
) -> DPTForDepthEstimation:
    """Every parameter random, also those that start at zero or one."""
    options: dict = {
        "hidden_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 96,
        "layer_norm_eps": 1e-6,
        "image_size": image_size,
        "readout_type": readout,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": list(WIDTHS),
        "fusion_hidden_size": 32,
    }
    if hybrid:
        options["is_hybrid"] = True
        options["backbone_config"] = {
            "model_type": "bit",
            "global_padding": "same",
            "layer_type": "bottleneck",
            "depths": [1, 2, 1],
            "hidden_sizes": [256, 512, 1024],
            "out_features": ["stage1", "stage2", "stage3"],
            "embedding_dynamic_padding": True,
        }
        options["neck_hidden_sizes"] = [256, 512, *WIDTHS[2:]]
        options["backbone_featmap_shape"] = [1, 1024, image_size // 16, image_size // 16]
    torch.manual_seed(0)
    model = DPTForDepthEstimation(DPTConfig(**options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                centre = 1.0 if name.endswith("weight") else 0.0
                parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
            elif "token" in name or "position" in name or "encoder.layer" in name:
                parameter.normal_(std=0.3)
            else:
                parameter.normal_(std=1.0 / parameter[0].numel() ** 0.5)
        # Depths of order one, most of them positive.
        model.head.head[4].weight.mul_(0.03)
        model.head.head[4].bias.fill_(0.5)
    return model


@torch.no_grad()
def reference_depth(model: DPTForDepthEstimation, image_bchw: Tensor) -> Tensor:
    """The reference's forward, told the patch grid, which its own call only knows if square."""
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: seen.append(out))
        for layer in model.dpt.encoder.layer
    ]
    grid_hw = (image_bchw.shape[-2] // 16, image_bchw.shape[-1] // 16)
    if model.config.is_hybrid:
        embeddings = model.dpt.embeddings(image_bchw, interpolate_pos_encoding=True)
        states = list(embeddings.intermediate_activations)
        model.dpt.encoder(embeddings.last_hidden_states)
        states += seen[2:]
    else:
        model.dpt(image_bchw)
        states = seen
    for hook in hooks:
        hook.remove()
    return model.head(model.neck(states, *grid_hw))


_RULES = (
    (r"^dpt\.embeddings\.cls_token$", "transformer.class_token_11c"),
    (r"^dpt\.embeddings\.position_embeddings$", "transformer.position.table_1nc"),
    (r"^dpt\.embeddings\.(?:patch_embeddings\.)?projection\.", "transformer.patch_embed."),
    (r"^dpt\.embeddings\.backbone\.bit\.embedder\.convolution\.", "stem.conv."),
    (r"^dpt\.embeddings\.backbone\.bit\.embedder\.norm\.", "stem.norm."),
    (
        r"^dpt\.embeddings\.backbone\.bit\.encoder\.stages\.(\d)\.layers\.(\d)\.",
        r"stem.stages.\1.\2.",
    ),
    (r"\.downsample\.conv\.", ".shortcut.0."),
    (r"\.downsample\.norm\.", ".shortcut.1."),
    (r"^dpt\.encoder\.layer\.", "transformer.blocks."),
    (r"\.attention\.output\.dense\.", ".attention.project."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^neck\.convs\.", "decoder.adapt."),
    (r"\.residual_layer1\.convolution", ".skip_unit.conv"),
    (r"\.residual_layer2\.convolution", ".unit.conv"),
    (r"^head\.head\.0\.", "head.conv1."),
    (r"^head\.head\.2\.", "head.conv2."),
    (r"^head\.head\.4\.", "head.conv3."),
)


def as_ours(model: DPTForDepthEstimation) -> dict[str, Tensor]:
    """The reference's parameters under the names of :class:`dense_perception.nets.dpt.DPT`."""
    ours: dict[str, Tensor] = {}
    theirs = model.state_dict()
    first = 2 if model.config.is_hybrid else 0
    for key, value in theirs.items():
        name = key
        # Unused by DPT: the final norm, and the deepest fusion's unit for a skip it has not.
        if name.startswith(("dpt.layernorm.", "neck.fusion_stage.layers.0.residual_layer1.")):
            continue
        if name.endswith("num_batches_tracked") or ".bit.norm." in name:
            continue
        part = re.search(r"attention\.attention\.(query|key|value)\.(weight|bias)$", name)
        if part:
            if part[1] != "query":
                continue
            three = [theirs[key.replace("query", kind)] for kind in ("query", "key", "value")]
            name, value = (
                name.replace("attention.attention.query", "attention.qkv"),
                torch.cat(three),
            )
        level = re.match(r"^neck\.reassemble_stage\.layers\.(\d)\.(projection|resize)\.(.*)", name)
        if level:
            kind = "project" if level[2] == "projection" else "resample"
            name = f"reassemble.{int(level[1]) - first}.{kind}.{level[3]}"
        readout = re.match(r"^neck\.reassemble_stage\.readout_projects\.(\d)\.0\.(.*)", name)
        if readout:
            name = f"reassemble.{int(readout[1]) - first}.readout.project.{readout[2]}"
        fusion = re.match(r"^neck\.fusion_stage\.layers\.(\d)\.(.*)", name)
        if fusion:
            rest = fusion[2].replace("projection.", "project.")
            name = f"decoder.fuse.{3 - int(fusion[1])}.{rest}"
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        ours[name] = value
    return ours
