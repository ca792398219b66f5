"""Weights into networks: every tensor is placed, or explained, or refused.

:func:`load_weights` takes published checkpoints, in the names of their authors, and our own files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import ArtefactError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.nets import beit, official_names
from dense_perception.nets.checkpoint import Checkpoint, read_checkpoint
from dense_perception.nets.depth_anything import DepthAnything
from dense_perception.nets.detection import official_names as detection_names
from dense_perception.nets.detection.dense_heads import DenseDetector
from dense_perception.nets.detection.mask_rcnn import RegionDetector
from dense_perception.nets.dpt import DPT
from dense_perception.nets.mask2former import official_names as mask2former_names
from dense_perception.nets.mask2former.mask2former import Mask2Former
from dense_perception.nets.official_names import Table
from dense_perception.nets.positions import PositionEmbedding, resize_positions
from dense_perception.nets.segmenter import Segmenter
from dense_perception.nets.swin import SwinTransformer
from dense_perception.nets.upernet import UperNet
from dense_perception.nets.vit import VisionTransformer
from dense_perception.nets.vit_comer import ViTCoMer

_SHOWN = 4
_FOLDED_BIAS = ".weight_bias"


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint's tensors.

    ``loaded`` counts our parameters and buffers that were filled; ``resized`` are ours that took
    another grid or patch; ``ignored`` are the checkpoint's that are known not to be used;
    ``missing`` are ours that keep their values (only where the caller allowed it); ``converted``
    are a transformer's scales of layers that one side has, folded or set to 1: the same numbers
    come out.
    """

    layout: str
    loaded: int
    resized: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.loaded} tensors loaded from names of {self.layout}"
        for word in ("resized", "converted", "ignored", "missing"):
            names = getattr(self, word)
            if names:
                text += f"; {len(names)} {word}: {some_of(names)}"
        return text


@dataclass
class _Renamed:
    """A checkpoint under our names."""

    layout: str
    tensors: dict[str, Tensor]
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def load_weights(module: nn.Module, source: Path | OnnxFile | Checkpoint) -> LoadReport:
    """Fill a network, or a backbone alone, with the weights of a file.

    Position embeddings of another grid are resized as the family does it. On an error the module is
    left as it was.

    A :class:`VisionTransformer` or :class:`SwinTransformer` is taken for a backbone that will be
    trained on, and fills from ImageNet (timm, DeiT), DINOv2, BEiT or Swin weights: the patch
    embedding is resampled bicubically to another patch size (DINOv2's 14 to 16, say); blocks after
    the last tap, tokens that the transformer does not have, and a final norm or classifier that
    only the file has are ignored; LayerScale is folded, or set to 1, where one side has it. A
    Swin's norms of the shallower stages and BEiT's final norm, which classification does not have,
    keep their values.

    :param source: a published checkpoint of the network's family in its authors', OpenMMLab's or
        Hugging Face's names, or one of our own: a ``model.pt`` or an exported fp32 ``.onnx`` file.
        :func:`~dense_perception.nets.checkpoint.read_checkpoint` says which formats are read.
    :raises ArtefactError: if the file cannot be read or is of another family or variant: naming
        what is missing, unexpected or of another shape.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    if isinstance(module, VisionTransformer | SwinTransformer):
        layouts: Mapping[str, Table] = official_names.BACKBONES
        if isinstance(module, SwinTransformer):
            layouts = {"Swin": official_names.swin("", "")}
        theirs: Mapping[str, Tensor] = beit.unfolded(checkpoint.weights)
        return _load(module, theirs, layouts, checkpoint.path, backbone=True)
    theirs = unfolded(module, checkpoint)
    return _load(module, theirs, _layouts(module), checkpoint.path, backbone=False)


def backbone_of(module: nn.Module) -> tuple[str, nn.Module] | None:
    """The name and module of the part that takes a published backbone; None where there is none."""
    for name, part in module.named_modules():
        if isinstance(part, VisionTransformer | SwinTransformer):
            return name, part
    return None


def _layouts(module: nn.Module) -> Mapping[str, Table]:
    if isinstance(module, Segmenter):
        return {"Segmenter": official_names.SEGMENTER}
    if isinstance(module, DepthAnything):
        return {
            "Depth Anything V2": official_names.DEPTH_ANYTHING,
            "Hugging Face": official_names.DEPTH_ANYTHING_HF,
        }
    if isinstance(module, DPT):
        config = module.config
        kind = (bool(config.stem_depths), bool(config.classes), config.auxiliary)
        return {
            "DPT": official_names.dpt(*kind),
            "Hugging Face": official_names.dpt_hf(*kind),
        }
    if isinstance(module, UperNet):
        body = _upernet_body(module.backbone)
        return {"OpenMMLab": [*body, *official_names.UPERNET_HEADS]} if body else {}
    if isinstance(module, Mask2Former) and isinstance(module.backbone, SwinTransformer):
        return {
            "detectron2": mask2former_names.detectron2_swin(),
            "Hugging Face": mask2former_names.hugging_face_swin(),
        }
    if isinstance(module, RegionDetector | DenseDetector):
        names = detection_names.table(module)
        return {"OpenMMLab": names} if names else {}
    return {}


def _upernet_body(backbone: nn.Module) -> Table:
    """The table of OpenMMLab's and the authors' backbones; empty for one nobody published."""
    if isinstance(backbone, ViTCoMer):
        return official_names.vit_comer(backbone.config, r"backbone\.", "backbone.")
    if isinstance(backbone, SwinTransformer):
        return official_names.swin(r"backbone\.", "backbone.")
    return []


def _load(
    module: nn.Module,
    theirs: Mapping[str, Tensor],
    layouts: Mapping[str, Table],
    path: Path,
    *,
    backbone: bool,
) -> LoadReport:
    ours = module.state_dict()
    renamed = _rename(theirs, ours, layouts)
    kept: list[str] = []
    converted: list[str] = []
    if backbone:
        _drop_unused(renamed, module, ours)
        converted = _convert_scales(renamed.tensors, ours)
        if isinstance(module, SwinTransformer):
            kept = sorted(k for k in ours if k.startswith("norms.") and k not in renamed.tensors)
        elif any(isinstance(part, beit.GridPositionBias) for part in module.modules()):
            # A classifier of BEiT's norms the mean of its tokens, not the tokens.
            kept = [k for k in ("norm.bias", "norm.weight") if k in ours.keys() - renamed.tensors]
    resized = _resize(module, renamed.tensors, ours, backbone)
    missing = sorted(set(ours) - set(renamed.tensors))
    # Checkpoints from before PyTorch 0.4.1 have no such counter, and nothing reads it here.
    missing = [
        key for key in missing if not key.endswith("num_batches_tracked") and key not in kept
    ]
    unknown = sorted(set(renamed.tensors) - set(ours)) + sorted(renamed.unexpected)
    wrong = [
        f"{key} is {_shape(value)}, expected {_shape(ours[key])}"
        for key, value in renamed.tensors.items()
        if key in ours and value.shape != ours[key].shape
    ]
    complaints = [
        f"{len(names)} {what}: {some_of(names)}"
        for what, names in (
            ("of another shape", wrong),
            ("missing", missing),
            ("unexpected", unknown),
        )
        if names
    ]
    if complaints:
        raise ArtefactError(
            f"{path} does not fit {type(module).__name__} (names of {renamed.layout}): "
            f"{'; '.join(complaints)}. Is it the checkpoint of another model or variant?"
        )
    refuse_broken(path, renamed.tensors)
    module.load_state_dict(renamed.tensors, strict=False)
    return LoadReport(
        renamed.layout,
        len(renamed.tensors),
        tuple(resized),
        tuple(sorted(renamed.ignored)),
        tuple(kept),
        tuple(converted),
    )


def refuse_broken(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Look for numbers that no network can compute with.

    :raises ArtefactError: naming the tensors that have some.
    """
    broken = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise ArtefactError(
            f"{path} has NaN or infinite weights in {some_of(broken)}: get it again"
        )


def _rename(
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    layouts: Mapping[str, Table],
) -> _Renamed:
    """By the layout that knows most of the names; our own names come first."""
    own = _Renamed("dense_perception", {})
    for key, value in theirs.items():
        if key in ours:
            own.tensors[key] = value
        else:
            own.unexpected.append(key)
    candidates = [own]
    for name, layout in layouts.items():
        candidates.append(_by_table(theirs, name, layout))
    return min(candidates, key=lambda candidate: len(candidate.unexpected))


def _by_table(theirs: Mapping[str, Tensor], layout: str, table: Table) -> _Renamed:
    rules = [(re.compile(pattern), name) for pattern, name in table]
    renamed = _Renamed(layout, {})
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in theirs.items():
        for rule, name in rules:
            match = rule.fullmatch(key)
            if match is None:
                continue
            if name is None:
                renamed.ignored.append(key)
                break
            ours, _, part = match.expand(name).partition("#")
            if part:
                parts.setdefault(ours, {})[part] = value
            else:
                renamed.tensors[ours] = value
            break
        else:
            renamed.unexpected.append(key)
    for key, three in parts.items():
        if len(three) == 3:
            renamed.tensors[key] = torch.cat([three[part] for part in "qkv"])
    return renamed


def _drop_unused(renamed: _Renamed, module: nn.Module, ours: Mapping[str, Tensor]) -> None:
    """What a backbone's checkpoint may have and ours not."""
    blocks = len(module.blocks) if isinstance(module, VisionTransformer) else 0
    classifier = [key for key in renamed.unexpected if re.fullmatch(r"head\.(weight|bias)", key)]
    renamed.unexpected = [key for key in renamed.unexpected if key not in classifier]
    renamed.ignored += classifier
    for key in sorted(set(renamed.tensors) - set(ours)):
        block = re.match(r"blocks\.(\d+)\.", key) if blocks else None
        if (block and int(block[1]) >= blocks) or key.startswith(
            ("class_token", "distillation_token", "norm.")
        ):
            del renamed.tensors[key]
            renamed.ignored.append(key)


def _convert_scales(tensors: dict[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """LayerScale between a file that has it and a network that has not, or the other way; in place.

    DINOv2 and BEiT scale what each branch adds, ImageNet's transformers do not. A scale belongs
    just as well to the branch's last layer, and a scale of 1 changes nothing.
    """
    converted = []
    for key in sorted(tensors.keys() - ours.keys()):
        match = re.fullmatch(r"(.*\bblocks\.\d+\.)scale([12])\.gamma_c", key)
        if match is None:
            continue
        last = match[1] + ("attention.project" if match[2] == "1" else "mlp.fc2")
        if f"{last}.weight" not in tensors or f"{last}.bias" not in tensors:
            continue  # reported as missing
        gamma_c = tensors.pop(key)
        tensors[f"{last}.weight"] = gamma_c[:, None] * tensors[f"{last}.weight"]
        tensors[f"{last}.bias"] = gamma_c * tensors[f"{last}.bias"]
        converted.append(key)
    for key in sorted(ours.keys() - tensors.keys()):
        match = re.fullmatch(r"(.*\bblocks\.\d+\.)scale[12]\.gamma_c", key)
        if match and f"{match[1]}mlp.fc2.weight" in tensors:
            tensors[key] = torch.ones_like(ours[key])
            converted.append(key)
    return converted


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def some_of(given: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(given)
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _resize(
    module: nn.Module, tensors: dict[str, Tensor], ours: Mapping[str, Tensor], backbone: bool
) -> list[str]:
    """Positions (and a backbone's patch embedding) to our size, in place; the keys changed."""
    resized = []
    for name, part in module.named_modules():
        key = f"{name}.table_1nc".lstrip(".")
        table = tensors.get(key)
        if not isinstance(part, PositionEmbedding) or table is None:
            continue
        if table.ndim != 3 or table.shape == ours[key].shape:
            continue
        count = table.shape[1]
        prefix = part.prefix
        if backbone or math.isqrt(max(count - prefix, 0)) ** 2 != count - prefix:
            # The checkpoint's extra tokens may be more or fewer than ours; a grid is square.
            prefix = next((p for p in (0, 1, 2) if math.isqrt(count - p) ** 2 == count - p), prefix)
        side = math.isqrt(max(count - prefix, 0))
        if side == 0 or side * side != count - prefix or table.shape[-1] != ours[key].shape[-1]:
            continue  # reported as being of another shape
        grid = resize_positions(
            table[:, prefix:].float(), (side, side), part.grid_hw, 0, part.method
        )
        extra = _extra_positions(table[:, :prefix].float(), ours[key][:, : part.prefix])
        tensors[key] = torch.cat([extra, grid], dim=1)
        resized.append(key)
    for name, part in module.named_modules():
        key = f"{name}.table"
        if not isinstance(part, beit.GridPositionBias) or key not in tensors:
            continue
        grid_hw = beit.square_grid(tensors[key])
        if grid_hw is not None and tensors[key].shape != ours[key].shape:
            tensors[key] = beit.resize_table(tensors[key].float(), grid_hw, part.grid_hw)
            resized.append(key)
    key = "patch_embed.weight"
    if backbone and key in tensors and tensors[key].shape[:2] == ours[key].shape[:2]:
        size_hw = tuple(ours[key].shape[-2:])
        if tensors[key].ndim == 4 and tuple(tensors[key].shape[-2:]) != size_hw:
            tensors[key] = F.interpolate(
                tensors[key].float(), size=size_hw, mode="bicubic", align_corners=False
            )
            resized.append(key)
    return resized


def _extra_positions(theirs_1pc: Tensor, ours_1pc: Tensor) -> Tensor:
    """The positions of as many extra tokens as we have; those they lack keep our values."""
    kept = min(theirs_1pc.shape[1], ours_1pc.shape[1])
    return torch.cat([theirs_1pc[:, :kept], ours_1pc[:, kept:].to(theirs_1pc)], dim=1)


def unfolded(module: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights of an exported file with the BatchNorms that export folded into convolutions.

    They come back as ones that only add the folded bias (mean 0, variance 1 - eps, weight 1), which
    computes the same. Constants of the graph that are no weights of ``module`` are left out.
    """
    found = checkpoint.weights
    if not checkpoint.is_exported:
        return dict(found)
    weights = {name: found[name] for name in module.state_dict() if name in found}
    for prefix, norm, conv in _batch_norms(module):
        weights |= _identity(prefix, norm, found.get(conv + _FOLDED_BIAS))
    return weights


def _batch_norms(network: nn.Module) -> list[tuple[str, nn.BatchNorm2d, str]]:
    """(name, module, name of the convolution before it) of each BatchNorm that export folds."""
    pairs = []
    for name, part in network.named_modules():
        if not isinstance(part, nn.Sequential):
            continue
        for index in range(1, len(part)):
            norm = part[index]
            if isinstance(norm, nn.BatchNorm2d) and isinstance(part[index - 1], nn.Conv2d):
                pairs.append((f"{name}.{index}", norm, f"{name}.{index - 1}"))
    return pairs


def _identity(prefix: str, norm: nn.BatchNorm2d, bias: Tensor | None) -> dict[str, Tensor]:
    if bias is None:
        return {}
    return {
        f"{prefix}.weight": torch.ones_like(bias),
        f"{prefix}.bias": bias,
        f"{prefix}.running_mean": torch.zeros_like(bias),
        f"{prefix}.running_var": torch.full_like(bias, 1 - norm.eps),
        f"{prefix}.num_batches_tracked": torch.tensor(0),
    }
