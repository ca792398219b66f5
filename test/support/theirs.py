"""Names of independent implementations' weights as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def rename_swin(theirs: Mapping[str, Tensor], depths: Sequence[int]) -> dict[str, Tensor]:
    """``transformers``' Swin (model or backbone) as :class:`SwinTransformer`'s."""
    ours: dict[str, Tensor] = {}

    def move(source: str, target: str) -> None:
        for leaf in ("weight", "bias"):
            for prefix in ("", "encoder.", "swin.", "swin.encoder."):
                if f"{prefix}{source}.{leaf}" in theirs:
                    ours[f"{target}.{leaf}"] = theirs[f"{prefix}{source}.{leaf}"]

    move("embeddings.patch_embeddings.projection", "patch_embed")
    move("embeddings.norm", "patch_norm")
    move("layernorm", f"norms.{len(depths) - 1}")
    bases = [key for key in theirs if key.endswith("layers.0.blocks.0.layernorm_before.weight")]
    base = bases[0].removesuffix("layers.0.blocks.0.layernorm_before.weight")
    for stage, depth in enumerate(depths):
        move(f"hidden_states_norms.stage{stage + 1}", f"norms.{stage}")
        if stage:
            move(f"layers.{stage - 1}.downsample.norm", f"stages.{stage}.merge.norm")
            move(f"layers.{stage - 1}.downsample.reduction", f"stages.{stage}.merge.reduce")
        for index in range(depth):
            source, target = f"layers.{stage}.blocks.{index}", f"stages.{stage}.blocks.{index}"
            move(f"{source}.layernorm_before", f"{target}.norm1")
            move(f"{source}.layernorm_after", f"{target}.norm2")
            move(f"{source}.attention.o_proj", f"{target}.attention.project")
            move(f"{source}.mlp.fc1", f"{target}.mlp.fc1")
            move(f"{source}.mlp.fc2", f"{target}.mlp.fc2")
            attention = f"{base}{source}.attention"
            for leaf in ("weight", "bias"):
                ours[f"{target}.attention.qkv.{leaf}"] = torch.cat(
                    [theirs[f"{attention}.{part}_proj.{leaf}"] for part in "qkv"]
                )
            ours[f"{target}.attention.bias.table"] = theirs[
                f"{attention}.relative_position_bias.relative_position_bias_table"
            ]
    return ours


def rename_upernet_heads(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``transformers``' UperNet heads as those of :class:`UperNet`."""
    ours = {}
    for key, value in theirs.items():
        head, _, rest = key.partition(".")
        if head not in ("decode_head", "auxiliary_head"):
            continue
        rest = rest.replace(".batch_norm.", ".1.").replace(".conv.", ".0.")
        if head == "auxiliary_head":
            rest = rest.replace("convs.0.", "conv.")
        for source, target in (
            ("psp_modules.", "pool.project."),
            ("fpn_bottleneck.", "fuse."),
            ("bottleneck.", "pool.fuse."),
            ("lateral_convs.", "lateral."),
            ("fpn_convs.", "smooth."),
            ("classifier.", "classify."),
        ):
            if rest.startswith(source):
                rest = target + rest.removeprefix(source)
                break
        if rest.startswith("pool.project."):
            # pool.project.<side>.1 is the convolution, .0 the pooling without weights.
            side, _, leaf = rest.removeprefix("pool.project.").partition(".1.")
            rest = f"pool.project.{side}.{leaf}"
        ours[f"{'head' if head == 'decode_head' else 'auxiliary'}.{rest}"] = value
    return ours
