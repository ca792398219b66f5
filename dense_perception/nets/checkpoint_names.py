"""How the published checkpoints call what our modules hold.

A table is a list of (pattern, ours): a checkpoint's key is matched as a whole against each regular
expression in turn; the first match gives our key by its groups, or None where the published weight
is not used. A key ending in ``#q``, ``#k`` or ``#v`` is one part of a fused ``qkv`` parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

Table = Sequence[tuple[str, str | None]]

_LEAF = r"(weight|bias)"
_BATCH_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


def vit(theirs: str, ours: str) -> Table:
    """timm's, DeiT's, DINOv2's, BEiT's and Segmenter's transformer under prefix ``theirs``.

    The classifiers and DINOv2's mask token serve pretraining only.
    """
    return [
        (rf"{theirs}cls_token", f"{ours}class_token_11c"),
        (rf"{theirs}dist_token", f"{ours}distillation_token_11c"),
        (rf"{theirs}pos_embed", f"{ours}position.table_1nc"),
        (rf"{theirs}patch_embed\.proj\.{_LEAF}", rf"{ours}patch_embed.\1"),
        *_vit_blocks(rf"{theirs}blocks\.", f"{ours}blocks."),
        (rf"{theirs}norm\.{_LEAF}", rf"{ours}norm.\1"),
        (rf"{theirs}(head|head_dist|pre_logits\.fc|fc_norm|lm_head)\.{_LEAF}", None),
        (rf"{theirs}rel_pos_bias\.relative_position_index", None),
        (rf"{theirs}mask_token", None),
    ]


def _vit_blocks(theirs: str, ours: str) -> Table:
    return [
        (rf"{theirs}(\d+)\.(norm[12])\.{_LEAF}", rf"{ours}\1.\2.\3"),
        (rf"{theirs}(\d+)\.attn\.qkv\.{_LEAF}", rf"{ours}\1.attention.qkv.\2"),
        (rf"{theirs}(\d+)\.attn\.proj\.{_LEAF}", rf"{ours}\1.attention.project.\2"),
        (rf"{theirs}(\d+)\.mlp\.(fc[12])\.{_LEAF}", rf"{ours}\1.mlp.\2.\3"),
        (rf"{theirs}(\d+)\.ls([12])\.gamma", rf"{ours}\1.scale\2.gamma_c"),
        # BEiT's names for the same, and its relative positions.
        (rf"{theirs}(\d+)\.gamma_([12])", rf"{ours}\1.scale\2.gamma_c"),
        (
            rf"{theirs}(\d+)\.attn\.relative_position_bias_table",
            rf"{ours}\1.position_bias.table",
        ),
        (rf"{theirs}(\d+)\.attn\.relative_position_index", None),
    ]


SEGMENTER: Table = [
    *vit(r"encoder\.", "encoder."),
    (rf"decoder\.head\.{_LEAF}", r"decoder.head.\1"),
    (r"decoder\.cls_emb", "decoder.class_embeddings_1kc"),
    (r"decoder\.proj_patch", "decoder.patch_projection_cc"),
    (r"decoder\.proj_classes", "decoder.class_projection_cc"),
    (rf"decoder\.proj_dec\.{_LEAF}", r"decoder.embed.\1"),
    (rf"decoder\.decoder_norm\.{_LEAF}", r"decoder.norm.\1"),
    (rf"decoder\.mask_norm\.{_LEAF}", r"decoder.mask_norm.\1"),
    *_vit_blocks(r"decoder\.blocks\.", "decoder.blocks."),
]


def _scratch(theirs: str) -> Table:
    """MiDaS' and DPT's decoder. The deepest fusion has no skip, so its first unit is unused."""
    table: list[tuple[str, str | None]] = [(rf"{theirs}refinenet4\.resConfUnit1\..*", None)]
    unit = rf"conv([12])\.{_LEAF}"
    norm = rf"bn([12])\.{_BATCH_NORM}"
    for level in range(4):
        at, fuse = rf"{theirs}refinenet{level + 1}\.", f"decoder.fuse.{level}."
        table += [
            (rf"{theirs}layer{level + 1}_rn\.weight", f"decoder.adapt.{level}.weight"),
            (rf"{at}out_conv\.{_LEAF}", rf"{fuse}project.\1"),
            (rf"{at}resConfUnit1\.{unit}", rf"{fuse}skip_unit.conv\1.\2"),
            (rf"{at}resConfUnit2\.{unit}", rf"{fuse}unit.conv\1.\2"),
            (rf"{at}resConfUnit1\.{norm}", rf"{fuse}skip_unit.norm\1.\2"),
            (rf"{at}resConfUnit2\.{norm}", rf"{fuse}unit.norm\1.\2"),
        ]
    return table


DEPTH_ANYTHING: Table = [
    *vit(r"pretrained\.", "transformer."),
    (rf"depth_head\.projects\.(\d)\.{_LEAF}", r"reassemble.\1.project.\2"),
    (rf"depth_head\.resize_layers\.(\d)\.{_LEAF}", r"reassemble.\1.resample.\2"),
    *_scratch(r"depth_head\.scratch\."),
    (rf"depth_head\.scratch\.output_conv1\.{_LEAF}", r"head.conv1.\1"),
    (rf"depth_head\.scratch\.output_conv2\.0\.{_LEAF}", r"head.conv2.\1"),
    (rf"depth_head\.scratch\.output_conv2\.2\.{_LEAF}", r"head.conv3.\1"),
]


def _dpt_head(theirs: str, segmentation: bool) -> Table:
    """DPT's heads are sequences; the layers without weights leave gaps in the numbers."""
    if segmentation:
        return [
            (rf"{theirs}0\.weight", "head.conv.weight"),
            (rf"{theirs}1\.{_BATCH_NORM}", r"head.norm.\1"),
            (rf"{theirs}4\.{_LEAF}", r"head.classify.\1"),
        ]
    return [
        (rf"{theirs}{2 * number}\.{_LEAF}", rf"head.conv{number + 1}.\1") for number in range(3)
    ]


def dpt(hybrid: bool, segmentation: bool) -> Table:
    """DPT's and MiDaS' own checkpoints.

    In the hybrid the first two levels come from the stem and have no weights of their own, so our
    reassemble stages are numbered from the third.
    """
    first = 2 if hybrid else 0
    table: list[tuple[str, str | None]] = []
    for level in range(first, 4):
        at, ours = rf"pretrained\.act_postprocess{level + 1}\.", f"reassemble.{level - first}."
        table += [
            (rf"{at}0\.project\.0\.{_LEAF}", rf"{ours}readout.project.\1"),
            (rf"{at}3\.{_LEAF}", rf"{ours}project.\1"),
            (rf"{at}4\.{_LEAF}", rf"{ours}resample.\1"),
        ]
    if hybrid:
        table += _resnetv2_timm(r"pretrained\.model\.patch_embed\.backbone\.", "stem.")
    return [
        *table,
        # The final norm is in the file but never read.
        (rf"pretrained\.model\.norm\.{_LEAF}", None),
        *vit(r"pretrained\.model\.", "transformer."),
        *_scratch(r"scratch\."),
        *_dpt_head(r"scratch\.output_conv\.", segmentation),
        (r"auxlayer\..*", None),
    ]


def _resnetv2_timm(theirs: str, ours: str) -> Table:
    block = rf"{theirs}stages\.(\d)\.blocks\.(\d+)\."
    return [
        (rf"{theirs}stem\.conv\.weight", f"{ours}conv.weight"),
        (rf"{theirs}stem\.norm\.{_LEAF}", rf"{ours}norm.\1"),
        (rf"{block}(conv[123])\.weight", rf"{ours}stages.\1.\2.\3.weight"),
        (rf"{block}(norm[123])\.{_LEAF}", rf"{ours}stages.\1.\2.\3.\4"),
        (rf"{block}downsample\.conv\.weight", rf"{ours}stages.\1.\2.shortcut.0.weight"),
        (rf"{block}downsample\.norm\.{_LEAF}", rf"{ours}stages.\1.\2.shortcut.1.\3"),
    ]


def _hf_vit(theirs: str, ours: str) -> Table:
    """The Hugging Face names of a ViT or a DINOv2 under prefix ``theirs``."""
    layer, block = rf"{theirs}encoder\.layer\.(\d+)\.", rf"{ours}blocks.\1."
    table: list[tuple[str, str | None]] = [
        (rf"{theirs}embeddings\.cls_token", f"{ours}class_token_11c"),
        (rf"{theirs}embeddings\.mask_token", None),
        (rf"{theirs}embeddings\.position_embeddings", f"{ours}position.table_1nc"),
        (
            rf"{theirs}embeddings\.(?:patch_embeddings\.)?projection\.{_LEAF}",
            rf"{ours}patch_embed.\1",
        ),
        (rf"{layer}attention\.output\.dense\.{_LEAF}", rf"{block}attention.project.\2"),
        (rf"{layer}norm([12])\.{_LEAF}", rf"{block}norm\2.\3"),
        (rf"{layer}layernorm_before\.{_LEAF}", rf"{block}norm1.\2"),
        (rf"{layer}layernorm_after\.{_LEAF}", rf"{block}norm2.\2"),
        (rf"{layer}mlp\.(fc[12])\.{_LEAF}", rf"{block}mlp.\2.\3"),
        (rf"{layer}intermediate\.dense\.{_LEAF}", rf"{block}mlp.fc1.\2"),
        (rf"{layer}output\.dense\.{_LEAF}", rf"{block}mlp.fc2.\2"),
        (rf"{layer}layer_scale([12])\.lambda1", rf"{block}scale\2.gamma_c"),
    ]
    for name in ("query", "key", "value"):
        table.append(
            (
                rf"{layer}attention\.attention\.{name}\.{_LEAF}",
                rf"{block}attention.qkv.\2#{name[0]}",
            )
        )
    return table


def _hf_neck(first: int = 0) -> Table:
    """DPT's neck as Hugging Face names it; its fusion layers are numbered from the deepest."""
    table: list[tuple[str, str | None]] = [
        (r"neck\.convs\.(\d)\.weight", r"decoder.adapt.\1.weight"),
        (r"neck\.fusion_stage\.layers\.0\.residual_layer1\..*", None),
    ]
    for level in range(first, 4):
        at = rf"neck\.reassemble_stage\.layers\.{level}\."
        readout = rf"neck\.reassemble_stage\.readout_projects\.{level}\.0\.{_LEAF}"
        ours = f"reassemble.{level - first}."
        table += [
            (rf"{at}projection\.{_LEAF}", rf"{ours}project.\1"),
            (rf"{at}resize\.{_LEAF}", rf"{ours}resample.\1"),
            (readout, rf"{ours}readout.project.\1"),
        ]
    for level in range(4):
        at, ours = rf"neck\.fusion_stage\.layers\.{3 - level}\.", f"decoder.fuse.{level}."
        table.append((rf"{at}projection\.{_LEAF}", rf"{ours}project.\1"))
        for number, unit in (("1", "skip_unit"), ("2", "unit")):
            layer = rf"{at}residual_layer{number}\."
            table += [
                (rf"{layer}convolution([12])\.{_LEAF}", rf"{ours}{unit}.conv\1.\2"),
                (rf"{layer}batch_norm([12])\.{_BATCH_NORM}", rf"{ours}{unit}.norm\1.\2"),
            ]
    return table


DEPTH_ANYTHING_HF: Table = [
    *_hf_vit(r"backbone\.", "transformer."),
    (rf"backbone\.layernorm\.{_LEAF}", r"transformer.norm.\1"),
    *_hf_neck(),
    (rf"head\.(conv[123])\.{_LEAF}", r"head.\1.\2"),
]


def dpt_hf(hybrid: bool, segmentation: bool) -> Table:
    """``Intel/dpt-*`` on the Hugging Face hub."""
    stem: list[tuple[str, str | None]] = []
    if hybrid:
        bit = r"dpt\.embeddings\.backbone\.bit\."
        block = rf"{bit}encoder\.stages\.(\d)\.layers\.(\d+)\."
        stem = [
            (rf"{bit}embedder\.convolution\.weight", "stem.conv.weight"),
            (rf"{bit}embedder\.norm\.{_LEAF}", r"stem.norm.\1"),
            (rf"{bit}norm\.{_LEAF}", None),
            (rf"{block}(conv[123])\.weight", r"stem.stages.\1.\2.\3.weight"),
            (rf"{block}(norm[123])\.{_LEAF}", r"stem.stages.\1.\2.\3.\4"),
            (rf"{block}downsample\.conv\.weight", r"stem.stages.\1.\2.shortcut.0.weight"),
            (rf"{block}downsample\.norm\.{_LEAF}", r"stem.stages.\1.\2.shortcut.1.\3"),
        ]
    return [
        *stem,
        *_hf_vit(r"dpt\.", "transformer."),
        # The final norm and the pooler serve classification only.
        (rf"dpt\.layernorm\.{_LEAF}", None),
        (rf"dpt\.pooler\.dense\.{_LEAF}", None),
        *_hf_neck(2 if hybrid else 0),
        *_dpt_head(r"head\.head\.", segmentation),
        (r"auxiliary_head\..*", None),
    ]


def _upernet_heads() -> Table:
    numbered = [
        (r"decode_head\.psp_modules\.(\d)\.1", r"head.pool.project.\1"),
        (r"decode_head\.lateral_convs\.(\d)", r"head.lateral.\1"),
        (r"decode_head\.fpn_convs\.(\d)", r"head.smooth.\1"),
    ]
    single = [
        (r"decode_head\.bottleneck", "head.pool.fuse"),
        (r"decode_head\.fpn_bottleneck", "head.fuse"),
        (r"auxiliary_head\.convs\.0", "auxiliary.conv"),
    ]
    table: list[tuple[str, str | None]] = [
        (rf"decode_head\.conv_seg\.{_LEAF}", r"head.classify.\1"),
        (rf"auxiliary_head\.conv_seg\.{_LEAF}", r"auxiliary.classify.\1"),
    ]
    for modules, leaf in ((numbered, r"\2"), (single, r"\1")):
        for theirs, ours in modules:
            table += [
                (rf"{theirs}\.conv\.weight", rf"{ours}.0.weight"),
                (rf"{theirs}\.bn\.{_BATCH_NORM}", rf"{ours}.1.{leaf}"),
            ]
    return table


UPERNET_HEADS: Table = _upernet_heads()
"""OpenMMLab's UperNet without its backbone."""

BACKBONES: dict[str, Table] = {
    "timm, DeiT, DINOv2 or BEiT": vit("", ""),
    "Hugging Face": [
        *_hf_vit(r"(?:vit\.|deit\.|dinov2\.)?", ""),
        (rf"(?:vit\.|deit\.|dinov2\.)?layernorm\.{_LEAF}", r"norm.\1"),
        (rf"(?:.*\.)?(?:pooler\.dense|classifier|cls_classifier)\.{_LEAF}", None),
    ],
}
"""Pretrained vision transformers, for fine-tuning."""
