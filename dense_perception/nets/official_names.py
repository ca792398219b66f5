"""How the published checkpoints call what our modules hold.

A table is a list of (pattern, ours): a checkpoint's key is matched as a whole against each regular
expression in turn; the first match gives our key by its groups, or None where the published weight
is not used. A key ending in ``#q``, ``#k`` or ``#v`` is one part of a fused ``qkv`` parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

from dense_perception.nets.vit_comer import CoMerConfig

Table = Sequence[tuple[str, str | None]]

_LEAF = r"(weight|bias)"
_ANY = r"([^.]+)"
_FFN = ((r"fc1\.", "fc1."), (r"fc2\.", "fc2."), (r"dwconv\.dwconv\.", "depthwise."))
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


def _class_head(theirs: str) -> list[tuple[str, str]]:
    return [
        (rf"{theirs}0\.weight", "head.conv.weight"),
        (rf"{theirs}1\.{_BATCH_NORM}", r"head.norm.\1"),
        (rf"{theirs}4\.{_LEAF}", r"head.classify.\1"),
    ]


def _dpt_head(theirs: str, segmentation: bool) -> Table:
    """DPT's heads are sequences; the layers without weights leave gaps in the numbers."""
    if segmentation:
        return [*_class_head(theirs)]
    return [
        (rf"{theirs}{2 * number}\.{_LEAF}", rf"head.conv{number + 1}.\1") for number in range(3)
    ]


def _dpt_auxiliary(theirs: str, wanted: bool) -> Table:
    """The auxiliary head, which serves the training alone."""
    if not wanted:
        return [(rf"{theirs}.*", None)]
    return [
        (pattern, name.replace("head.", "auxiliary.", 1)) for pattern, name in _class_head(theirs)
    ]


def dpt(hybrid: bool, segmentation: bool, auxiliary: bool = False) -> Table:
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
        *_dpt_auxiliary(r"auxlayer\.", auxiliary),
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
        # Names in files, then those that transformers 5 has in memory.
        (
            rf"{layer}attention\.(?:output\.dense|o_proj)\.{_LEAF}",
            rf"{block}attention.project.\2",
        ),
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
                rf"{layer}attention\.(?:attention\.{name}|{name[0]}_proj)\.{_LEAF}",
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


def dpt_hf(hybrid: bool, segmentation: bool, auxiliary: bool = False) -> Table:
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
        *_dpt_auxiliary(r"auxiliary_head\.head\.", auxiliary),
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


def swin(theirs: str, ours: str) -> Table:
    """Index and mask buffers are computed here; the classifier serves pretraining only.

    The merging layer belongs to the next stage here.
    """
    block = rf"{theirs}layers\.(\d)\.blocks\.(\d+)\."
    target = rf"{ours}stages.\1.blocks.\2."
    table: list[tuple[str, str | None]] = [
        (rf"{theirs}.*(relative_position_index|attn_mask)", None),
        (rf"{theirs}head\..*", None),
        (rf"{theirs}patch_embed\.proj\.{_ANY}", rf"{ours}patch_embed.\1"),
        (rf"{theirs}patch_embed\.norm\.{_ANY}", rf"{ours}patch_norm.\1"),
        (rf"{block}attn\.relative_position_bias_table", f"{target}attention.bias.table"),
        (rf"{block}attn\.qkv\.{_ANY}", rf"{target}attention.qkv.\3"),
        (rf"{block}attn\.proj\.{_ANY}", rf"{target}attention.project.\3"),
        (rf"{block}(norm[12]|mlp\.fc[12])\.{_ANY}", rf"{target}\3.\4"),
        (rf"{theirs}norm([0-3])\.{_ANY}", rf"{ours}norms.\1.\2"),
        (rf"{theirs}norm\.{_ANY}", rf"{ours}norms.3.\1"),
    ]
    for stage in range(3):
        merge = rf"{theirs}layers\.{stage}\.downsample\."
        table.append((rf"{merge}norm\.{_ANY}", rf"{ours}stages.{stage + 1}.merge.norm.\1"))
        table.append((rf"{merge}reduction\.{_ANY}", rf"{ours}stages.{stage + 1}.merge.reduce.\1"))
    return table


def vit_comer(config: CoMerConfig, theirs: str, ours: str) -> Table:
    """The authors' backbone. What their light and detection forms store and never use is left."""
    stem, neck = rf"{theirs}spm\.", f"{ours}neck."
    table: list[tuple[str, str | None]] = [
        (rf"{theirs}cls_token", None),
        (rf"{theirs}pos_embed", f"{ours}vit.position.table_1nc"),
        (rf"{theirs}patch_embed\.proj\.{_ANY}", rf"{ours}vit.patch_embed.\1"),
        *comer_blocks(theirs, ours),
        (rf"{theirs}level_embed", f"{neck}level_embed_3c"),
        (rf"{stem}stem\.(\d)\.{_ANY}", rf"{neck}stem.stem.\1.\2"),
        (rf"{theirs}up\.{_ANY}", rf"{neck}up.\1"),
    ]
    for index in range(4):
        table.append((rf"{stem}fc{index + 1}\.{_ANY}", rf"{neck}stem.project.{index}.\1"))
        table.append((rf"{theirs}norm{index + 1}\.{_ANY}", rf"{neck}norms.{index}.\1"))
    for index in range(3):
        conv = rf"{stem}conv{index + 2}\.(\d)\.{_ANY}"
        table.append((conv, rf"{neck}stem.downs.{index}.\1.\2"))
    for stage in range(4):
        table += _comer_stage(
            config, stage, rf"{theirs}interactions\.{stage}\.", f"{neck}stages.{stage}."
        )
    return table


def comer_blocks(theirs: str, ours: str) -> Table:
    """The transformer of ViT-CoMer's authors."""
    block, target = rf"{theirs}blocks\.(\d+)\.", rf"{ours}vit.blocks.\1."
    return [
        (rf"{block}attn\.qkv\.{_ANY}", rf"{target}attention.qkv.\2"),
        (rf"{block}attn\.proj\.{_ANY}", rf"{target}attention.project.\2"),
        (rf"{block}gamma([12])", rf"{target}scale\2.gamma_c"),
        (rf"{block}(norm[12]|mlp\.fc[12])\.{_ANY}", rf"{target}\2.\3"),
    ]


def _comer_stage(config: CoMerConfig, stage: int, theirs: str, ours: str) -> Table:
    table: list[tuple[str, str | None]] = []
    if not config.to_v[stage]:
        table.append((rf"{theirs}mrfp\..*", None))
    if not config.interaction[stage]:
        unused = r"(cti_toc|extra_CTIs\.\d)\.(query_norm|feat_norm)\..*"
        table.append((theirs + unused, None))
    table.append((rf"{theirs}mrfp\.(fc[12])\.{_ANY}", rf"{ours}mrfp.\1.\2"))
    for level in range(3):
        for kind, number in (("near", 2 * level + 1), ("far", 2 * level + 2)):
            filters = rf"{theirs}mrfp\.dwconv\.dwconv{number}\.{_ANY}"
            table.append((filters, rf"{ours}mrfp.{kind}.{level}.\1"))
        norms = rf"{theirs}mrfp\.dwconv\.bn{level + 1}\.{_ANY}"
        table.append((norms, rf"{ours}mrfp.norms.{level}.\1"))
    to_v = rf"{theirs}cti_tov\."
    table.append((rf"{to_v}gamma", f"{ours}to_v.gamma_c"))
    table += _attention(to_v, f"{ours}to_v.interact.")
    table += _ffn(to_v, f"{ours}to_v.ffn.")
    modules = [("cti_toc", "to_c"), *((rf"extra_CTIs\.{i}", f"extra.{i}") for i in range(9))]
    for source, target in modules:
        to_c, mine = rf"{theirs}{source}\.", f"{ours}{target}."
        table += _ffn(to_c, f"{mine}first.")
        table.append((rf"{to_c}query_norm\.{_ANY}", rf"{mine}query_norm.\1"))
        table.append((rf"{to_c}feat_norm\.{_ANY}", rf"{mine}feature_norm.\1"))
        table += _attention(rf"{to_c}cfinter\.", f"{mine}interact.")
        table += _ffn(rf"{to_c}cfinter\.", f"{mine}ffn.")
    return table


def _attention(theirs: str, ours: str) -> Table:
    return [
        (rf"{theirs}query_norm\.{_ANY}", rf"{ours}query_norm.\1"),
        (rf"{theirs}feat_norm\.{_ANY}", rf"{ours}feature_norm.\1"),
        (rf"{theirs}attn\.{_ANY}\.{_ANY}", rf"{ours}attention.\1.\2"),
    ]


def _ffn(theirs: str, ours: str) -> Table:
    table: list[tuple[str, str | None]] = [
        (rf"{theirs}ffn\.{source}{_ANY}", rf"{ours}body.{target}\1") for source, target in _FFN
    ]
    return [*table, (rf"{theirs}ffn_norm\.{_ANY}", rf"{ours}norm.\1")]
