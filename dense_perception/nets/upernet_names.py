"""How the published Swin and ViT-CoMer backbones call what our modules hold.

Tables as in ``checkpoint_names``. ViT-CoMer: Traffic-X/ViT-CoMer, commit b57f386.
Swin: microsoft/Swin-Transformer, and OpenMMLab's mmsegmentation.
"""

from __future__ import annotations

from dense_perception.nets.checkpoint_names import Table
from dense_perception.nets.comer_config import CoMerConfig

_ANY = r"([^.]+)"
_FFN = ((r"fc1\.", "fc1."), (r"fc2\.", "fc2."), (r"dwconv\.dwconv\.", "depthwise."))


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
    block, target = rf"{theirs}blocks\.(\d+)\.", rf"{ours}vit.blocks.\1."
    stem, neck = rf"{theirs}spm\.", f"{ours}neck."
    table: list[tuple[str, str | None]] = [
        (rf"{theirs}cls_token", None),
        (rf"{theirs}pos_embed", f"{ours}vit.position.table_1nc"),
        (rf"{theirs}patch_embed\.proj\.{_ANY}", rf"{ours}vit.patch_embed.\1"),
        (rf"{block}attn\.qkv\.{_ANY}", rf"{target}attention.qkv.\2"),
        (rf"{block}attn\.proj\.{_ANY}", rf"{target}attention.project.\2"),
        (rf"{block}gamma([12])", rf"{target}scale\2.gamma_c"),
        (rf"{block}(norm[12]|mlp\.fc[12])\.{_ANY}", rf"{target}\2.\3"),
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
