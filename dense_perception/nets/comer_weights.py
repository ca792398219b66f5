"""The names of the authors' ViT-CoMer and Swin checkpoints as ours.

ViT-CoMer: Traffic-X/ViT-CoMer, commit b57f386. Swin: microsoft/Swin-Transformer and the same names
in OpenMMLab's backbones, apart from the prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_RULES: tuple[tuple[str, str], ...] = (
    (r"patch_embed\.proj\.", "vit.patch_embed."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"vit.blocks.\1.attention.qkv."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"vit.blocks.\1.attention.project."),
    (r"blocks\.(\d+)\.gamma([12])$", r"vit.blocks.\1.scale\2.gamma_c"),
    (r"blocks\.(\d+)\.(norm[12]|mlp\.fc[12])\.", r"vit.blocks.\1.\2."),
    (r"level_embed$", "neck.level_embed_3c"),
    (r"spm\.stem\.", "neck.stem.stem."),
    (r"up\.", "neck.up."),
)
_NUMBERED = {
    r"spm\.conv(\d)\.": ("neck.stem.downs.{}.", 2),
    r"spm\.fc(\d)\.": ("neck.stem.project.{}.", 1),
    r"norm(\d)\.": ("neck.norms.{}.", 1),
}
_STAGE: tuple[tuple[str, str], ...] = (
    (r"cti_tov\.gamma$", "to_v.gamma_c"),
    (r"cti_tov\.query_norm\.", "to_v.interact.query_norm."),
    (r"cti_tov\.feat_norm\.", "to_v.interact.feature_norm."),
    (r"cti_tov\.attn\.", "to_v.interact.attention."),
    (r"cti_tov\.ffn_norm\.", "to_v.ffn.norm."),
    (r"cti_tov\.ffn\.dwconv\.dwconv\.", "to_v.ffn.body.depthwise."),
    (r"cti_tov\.ffn\.", "to_v.ffn.body."),
    (r"(cti_toc|extra_CTIs\.\d)\.query_norm\.", r"\1.query_norm."),
    (r"(cti_toc|extra_CTIs\.\d)\.feat_norm\.", r"\1.feature_norm."),
    (r"(cti_toc|extra_CTIs\.\d)\.ffn_norm\.", r"\1.first.norm."),
    (r"(cti_toc|extra_CTIs\.\d)\.ffn\.dwconv\.dwconv\.", r"\1.first.body.depthwise."),
    (r"(cti_toc|extra_CTIs\.\d)\.ffn\.", r"\1.first.body."),
    (r"(cti_toc|extra_CTIs\.\d)\.cfinter\.query_norm\.", r"\1.interact.query_norm."),
    (r"(cti_toc|extra_CTIs\.\d)\.cfinter\.feat_norm\.", r"\1.interact.feature_norm."),
    (r"(cti_toc|extra_CTIs\.\d)\.cfinter\.attn\.", r"\1.interact.attention."),
    (r"(cti_toc|extra_CTIs\.\d)\.cfinter\.ffn_norm\.", r"\1.ffn.norm."),
    (r"(cti_toc|extra_CTIs\.\d)\.cfinter\.ffn\.dwconv\.dwconv\.", r"\1.ffn.body.depthwise."),
    (r"(cti_toc|extra_CTIs\.\d)\.cfinter\.ffn\.", r"\1.ffn.body."),
    (r"mrfp\.(fc[12])\.", r"mrfp.\1."),
)
_SWIN: tuple[tuple[str, str], ...] = (
    (r"patch_embed\.proj\.", "patch_embed."),
    (r"patch_embed\.norm\.", "patch_norm."),
    (r"layers\.(\d)\.blocks\.(\d+)\.attn\.qkv\.", r"stages.\1.blocks.\2.attention.qkv."),
    (r"layers\.(\d)\.blocks\.(\d+)\.attn\.proj\.", r"stages.\1.blocks.\2.attention.project."),
    (
        r"layers\.(\d)\.blocks\.(\d+)\.attn\.relative_position_bias_table$",
        r"stages.\1.blocks.\2.attention.bias.table",
    ),
    (r"layers\.(\d)\.blocks\.(\d+)\.(norm[12]|mlp\.fc[12])\.", r"stages.\1.blocks.\2.\3."),
    (r"norm([0-3])\.", r"norms.\1."),
    (r"norm\.", "norms.3."),
)


def rename_vit_comer(theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The authors' backbone (keys without ``backbone.``) as :class:`ViTCoMer`'s state.

    Also returns the keys without a counterpart. The position of the class token, which the
    authors keep and never read, is cut off.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in theirs.items():
        if key == "pos_embed":
            ours["vit.position.table_1nc"] = value[:, 1:]
            continue
        name = _vit_comer_name(key)
        if name is None:
            unknown.append(key)
        else:
            ours[name] = value
    return ours, unknown


def rename_swin(theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """An official Swin (classifier or backbone) as :class:`SwinTransformer`'s state.

    Also returns the keys without a counterpart: the classifier. Index and mask buffers, which are
    computed here, are dropped. The merging layer belongs to the next stage here.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in theirs.items():
        if key.endswith(("relative_position_index", "attn_mask")):
            continue
        merge = re.match(r"layers\.(\d)\.downsample\.(norm|reduction)\.", key)
        if merge:
            part = "norm" if merge[2] == "norm" else "reduce"
            name: str | None = f"stages.{int(merge[1]) + 1}.merge.{part}.{key[merge.end() :]}"
        else:
            name = _apply(_SWIN, key)
        if name is None:
            unknown.append(key)
        else:
            ours[name] = value
    return ours, unknown


def _vit_comer_name(key: str) -> str | None:
    for pattern, (target, offset) in _NUMBERED.items():
        found = re.match(pattern, key)
        if found:
            return target.format(int(found[1]) - offset) + key[found.end() :]
    stage = re.match(r"interactions\.(\d)\.", key)
    if stage is None:
        return _apply(_RULES, key)
    rest = key[stage.end() :]
    name = _apply(_STAGE, rest) or _mrfp_name(rest)
    if name is None:
        return None
    name = name.replace("cti_toc.", "to_c.").replace("extra_CTIs.", "extra.")
    return f"neck.stages.{stage[1]}.{name}"


def _mrfp_name(key: str) -> str | None:
    """Filters are numbered 3x3, 5x5 of the finest level, then of the next; norms by level."""
    filters = re.match(r"mrfp\.dwconv\.dwconv([1-6])\.(.+)", key)
    if filters:
        level, is_far = divmod(int(filters[1]) - 1, 2)
        return f"mrfp.{'far' if is_far else 'near'}.{level}.{filters[2]}"
    norms = re.match(r"mrfp\.dwconv\.bn([1-3])\.(.+)", key)
    return f"mrfp.norms.{int(norms[1]) - 1}.{norms[2]}" if norms else None


def _apply(rules: tuple[tuple[str, str], ...], key: str) -> str | None:
    for pattern, replacement in rules:
        name, count = re.subn(rf"^{pattern}", replacement, key)
        if count:
            return name
    return None
