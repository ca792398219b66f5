"""Checkpoints as the authors' own training scripts write them, made from ours.

The names are written down here a second time, from the published modules, so that a slip in the
package's tables shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

_VIT = (
    (r"^class_token_11c$", "cls_token"),
    (r"^distillation_token_11c$", "dist_token"),
    (r"^position\.table_1nc$", "pos_embed"),
    (r"^patch_embed\.", "patch_embed.proj."),
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.project\.", ".attn.proj."),
    (r"\.scale([12])\.gamma_c$", r".ls\1.gamma"),
)
_MASK_DECODER = (
    (r"^class_embeddings_1kc$", "cls_emb"),
    (r"^patch_projection_cc$", "proj_patch"),
    (r"^class_projection_cc$", "proj_classes"),
    (r"^embed\.", "proj_dec."),
    (r"^norm\.", "decoder_norm."),
    *_VIT,
)


Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


def _renamed(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _part(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value.clone()
        for key, value in module.state_dict().items()
        if key.startswith(prefix)
    }


def segmenter(module: nn.Module) -> dict[str, object]:
    """As ``checkpoint.pth``: with the ImageNet classifier and the optimiser's state beside it."""
    weights = {
        f"encoder.{_renamed(key, _VIT)}": value for key, value in _part(module, "encoder.").items()
    }
    weights |= {
        f"decoder.{_renamed(key, _MASK_DECODER)}": value
        for key, value in _part(module, "decoder.").items()
    }
    dim = module.config.dim
    weights["encoder.head.weight"] = torch.randn(10, dim)
    weights["encoder.head.bias"] = torch.randn(10)
    if module.config.distilled:
        weights["encoder.head_dist.weight"] = torch.randn(10, dim)
        weights["encoder.head_dist.bias"] = torch.randn(10)
    return {
        "model": weights,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.001, "params": [0, 1]}]},
        "n_cls": module.config.classes,
        "lr_scheduler": {"base_lr": 0.001},
        "epoch": 3,
    }


def vit(module: nn.Module, prefix: str = "transformer.") -> dict[str, Tensor]:
    """timm's names; with a classifier and a final norm where ours has none."""
    weights = {_renamed(key, _VIT): value for key, value in _part(module, prefix).items()}
    dim = weights["cls_token"].shape[-1]
    weights.setdefault("norm.weight", torch.ones(dim))
    weights.setdefault("norm.bias", torch.zeros(dim))
    weights["head.weight"], weights["head.bias"] = torch.randn(10, dim), torch.randn(10)
    return weights


def _scratch(module: nn.Module) -> dict[str, Tensor]:
    weights = {}
    for key, value in _part(module, "decoder.").items():
        name = re.sub(r"^adapt\.(\d)\.", lambda m: f"layer{int(m[1]) + 1}_rn.", key)
        name = re.sub(r"^fuse\.(\d)\.", lambda m: f"refinenet{int(m[1]) + 1}.", name)
        for ours, theirs in (
            (".project.", ".out_conv."),
            (".skip_unit.", ".resConfUnit1."),
            (".unit.", ".resConfUnit2."),
            (".norm", ".bn"),
        ):
            name = name.replace(ours, theirs)
        weights[name] = value
    # The deepest fusion's unit for a skip that it has not.
    for leaf in ("conv1.weight", "conv2.weight"):
        weights[f"refinenet4.resConfUnit1.{leaf}"] = torch.randn(4, 4, 3, 3)
    return weights


def depth_anything(module: nn.Module) -> dict[str, Tensor]:
    weights = {f"pretrained.{key}": value for key, value in vit(module).items()}
    del weights["pretrained.head.weight"], weights["pretrained.head.bias"]
    weights["pretrained.mask_token"] = torch.zeros(1, module.config.dim)
    for key, value in _part(module, "reassemble.").items():
        level, part, leaf = key.split(".")
        name = {"project": "projects", "resample": "resize_layers"}[part]
        weights[f"depth_head.{name}.{level}.{leaf}"] = value
    weights |= {f"depth_head.scratch.{key}": value for key, value in _scratch(module).items()}
    layers = {"conv1": "output_conv1", "conv2": "output_conv2.0", "conv3": "output_conv2.2"}
    for key, value in _part(module, "head.").items():
        layer, leaf = key.split(".")
        weights[f"depth_head.scratch.{layers[layer]}.{leaf}"] = value
    return weights


def dpt(module: nn.Module) -> dict[str, Tensor]:
    hybrid, segmentation = bool(module.config.stem_depths), bool(module.config.classes)
    weights = {f"pretrained.model.{key}": value for key, value in vit(module).items()}
    if hybrid:
        for key, value in _part(module, "stem.").items():
            name = re.sub(r"^(conv|norm)\.", r"stem.\1.", key)
            name = re.sub(r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2.", name)
            name = name.replace("shortcut.0.", "downsample.conv.")
            name = name.replace("shortcut.1.", "downsample.norm.")
            weights[f"pretrained.model.patch_embed.backbone.{name}"] = value
    for key, value in _part(module, "reassemble.").items():
        level, rest = key.split(".", 1)
        number = int(level) + (3 if hybrid else 1)
        rest = rest.replace("readout.project.", "0.project.0.")
        rest = re.sub(r"^project\.", "3.", rest)
        rest = re.sub(r"^resample\.", "4.", rest)
        weights[f"pretrained.act_postprocess{number}.{rest}"] = value
    weights |= {f"scratch.{key}": value for key, value in _scratch(module).items()}
    if segmentation:
        layers = {"conv": "0", "norm": "1", "classify": "4"}
        weights["auxlayer.0.weight"] = torch.randn(4, 4, 3, 3)
    else:
        layers = {"conv1": "0", "conv2": "2", "conv3": "4"}
    for key, value in _part(module, "head.").items():
        layer, leaf = key.split(".")
        weights[f"scratch.output_conv.{layers[layer]}.{leaf}"] = value
    return weights


def upernet(module: nn.Module) -> dict[str, Tensor]:
    """OpenMMLab's segmentor on Swin or ViT-CoMer."""
    from dense_perception.nets.swin import SwinTransformer

    rename = _swin if isinstance(module.backbone, SwinTransformer) else _vit_comer
    weights = {
        f"backbone.{rename(key)}": value for key, value in _part(module, "backbone.").items()
    }
    if "backbone.pos_embed" in weights:
        # The authors store a position for a class token that their network has not.
        table = weights["backbone.pos_embed"]
        weights["backbone.pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    for ours, theirs in (("head.", "decode_head."), ("auxiliary.", "auxiliary_head.")):
        for key, value in _part(module, ours).items():
            name = _renamed(key, _UPERNET)
            name = re.sub(r"\.(0|1)\.(?=[a-z_]+$)", lambda m: _CONV[m[1]], name)
            weights[theirs + name] = value
    return weights


_CONV = {"0": ".conv.", "1": ".bn."}
_UPERNET = (
    (r"^pool\.project\.(\d)\.", r"psp_modules.\1.1."),
    (r"^pool\.fuse\.", "bottleneck."),
    (r"^lateral\.", "lateral_convs."),
    (r"^smooth\.", "fpn_convs."),
    (r"^fuse\.", "fpn_bottleneck."),
    (r"^conv\.", "convs.0."),
    (r"^classify\.", "conv_seg."),
)


def _swin(key: str) -> str:
    key = re.sub(r"^norms\.(\d)\.", r"norm\1.", key)
    key = key.replace("patch_embed.", "patch_embed.proj.").replace("patch_norm", "patch_embed.norm")
    merge = re.match(r"stages\.(\d)\.merge\.(norm|reduce)\.(.*)", key)
    if merge:
        part = {"norm": "norm", "reduce": "reduction"}[merge[2]]
        return f"layers.{int(merge[1]) - 1}.downsample.{part}.{merge[3]}"
    key = key.replace("stages.", "layers.").replace("attention.qkv", "attn.qkv")
    key = key.replace("attention.project", "attn.proj")
    return key.replace("attention.bias.table", "attn.relative_position_bias_table")


_VIT_COMER = (
    (r"^vit\.position\.table_1nc$", "pos_embed"),
    (r"^vit\.patch_embed\.", "patch_embed.proj."),
    (r"^vit\.blocks\.(\d+)\.attention\.qkv\.", r"blocks.\1.attn.qkv."),
    (r"^vit\.blocks\.(\d+)\.attention\.project\.", r"blocks.\1.attn.proj."),
    (r"^vit\.blocks\.(\d+)\.scale([12])\.gamma_c$", r"blocks.\1.gamma\2"),
    (r"^vit\.", ""),
    (r"^neck\.level_embed_3c$", "level_embed"),
    (r"^neck\.stem\.stem\.", "spm.stem."),
    (r"^neck\.up\.", "up."),
    (r"^neck\.stages\.", "interactions."),
    (r"\.to_v\.gamma_c$", ".cti_tov.gamma"),
    (r"\.to_v\.interact\.", ".cti_tov."),
    (r"\.to_v\.ffn\.norm\.", ".cti_tov.ffn_norm."),
    (r"\.to_v\.ffn\.body\.", ".cti_tov.ffn."),
    (r"\.to_c\.", ".cti_toc."),
    (r"\.extra\.", ".extra_CTIs."),
    (r"\.interact\.", ".cfinter."),
    (r"(\.cti_toc|\.extra_CTIs\.\d)\.ffn\.norm\.", r"\1.cfinter.ffn_norm."),
    (r"(\.cti_toc|\.extra_CTIs\.\d)\.ffn\.body\.", r"\1.cfinter.ffn."),
    (r"\.first\.norm\.", ".ffn_norm."),
    (r"\.first\.body\.", ".ffn."),
    (r"\.feature_norm\.", ".feat_norm."),
    (r"\.ffn\.depthwise\.", ".ffn.dwconv.dwconv."),
    (r"\.attention\.", ".attn."),
)


def _vit_comer(key: str) -> str:
    key = re.sub(r"^neck\.stem\.downs\.(\d)\.", lambda m: f"spm.conv{int(m[1]) + 2}.", key)
    key = re.sub(r"^neck\.stem\.project\.(\d)\.", lambda m: f"spm.fc{int(m[1]) + 1}.", key)
    key = re.sub(r"^neck\.norms\.(\d)\.", lambda m: f"norm{int(m[1]) + 1}.", key)
    filters = re.search(r"\.mrfp\.(near|far)\.(\d)\.", key)
    if filters:
        number = 2 * int(filters[2]) + (2 if filters[1] == "far" else 1)
        key = key.replace(filters[0], f".mrfp.dwconv.dwconv{number}.")
    key = re.sub(r"\.mrfp\.norms\.(\d)\.", lambda m: f".mrfp.dwconv.bn{int(m[1]) + 1}.", key)
    return _renamed(key, _VIT_COMER)


def mask2former(module: nn.Module) -> dict[str, Tensor]:
    """detectron2's, on Swin, with the weights of the classes that the authors' loss stores."""
    weights = {f"backbone.{_swin(key)}": value for key, value in _part(module, "backbone.").items()}
    for key, value in _part(module, "pixel_decoder.").items():
        weights[f"sem_seg_head.pixel_decoder.{_renamed(key, _PIXEL_DECODER)}"] = value
    for key, value in _part(module, "decoder.").items():
        weights[f"sem_seg_head.predictor.{_renamed(key, _QUERIES)}"] = value
    weights["criterion.empty_weight"] = torch.ones(module.config.classes + 1)
    return weights


_PIXEL_DECODER = (
    (r"^project\.", "input_proj."),
    (r"^level_embed_3c$", "transformer.level_embed"),
    (r"^layers\.(\d+)\.attention\.", r"transformer.encoder.layers.\1.self_attn."),
    (r"^layers\.(\d+)\.norm\.", r"transformer.encoder.layers.\1.norm1."),
    (r"^layers\.(\d+)\.feed_forward\.fc([12])\.", r"transformer.encoder.layers.\1.linear\2."),
    (r"^layers\.(\d+)\.feed_forward\.norm\.", r"transformer.encoder.layers.\1.norm2."),
    (r"^lateral\.0\.", "adapter_1."),
    (r"^lateral\.1\.", "adapter_1.norm."),
    (r"^smooth\.0\.", "layer_1."),
    (r"^smooth\.1\.", "layer_1.norm."),
    (r"^embed\.", "mask_features."),
)
_QUERIES = (
    (r"^query_qc$", "query_feat.weight"),
    (r"^query_position_qc$", "query_embed.weight"),
    (r"^level_embed_3c$", "level_embed.weight"),
    (r"^layers\.(\d+)\.feed_forward\.norm\.", r"transformer_ffn_layers.\1.norm."),
    (r"^layers\.(\d+)\.feed_forward\.fc([12])\.", r"transformer_ffn_layers.\1.linear\2."),
    (r"^layers\.(\d+)\.(cross|self)_norm\.", r"transformer_\2_attention_layers.\1.norm."),
    (
        r"^layers\.(\d+)\.cross_attention\.",
        r"transformer_cross_attention_layers.\1.multihead_attn.",
    ),
    (r"^layers\.(\d+)\.self_attention\.", r"transformer_self_attention_layers.\1.self_attn."),
    (r"\.qkv\.", ".in_proj_"),
    (r"\.project\.", ".out_proj."),
    (r"^norm\.", "decoder_norm."),
    (r"^classify\.", "class_embed."),
    (r"^embed\.(\d)\.", lambda match: f"mask_embed.layers.{int(match[1]) // 2}."),
)
