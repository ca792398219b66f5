"""Published weights into our networks: every tensor is placed, or explained, or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dense_perception.core.errors import ArtefactError
from dense_perception.nets import beit, checkpoint_names, upernet_names
from dense_perception.nets.checkpoint_file import read_checkpoint
from dense_perception.nets.checkpoint_names import Table
from dense_perception.nets.depth_anything import DepthAnything
from dense_perception.nets.dpt import DPT
from dense_perception.nets.resized_weights import resize_to
from dense_perception.nets.segmenter import Segmenter
from dense_perception.nets.swin import SwinTransformer
from dense_perception.nets.upernet import UperNet
from dense_perception.nets.vit import VisionTransformer
from dense_perception.nets.vit_comer import ViTCoMer

_SHOWN = 4


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint's tensors.

    ``loaded`` counts our parameters and buffers that were filled; ``resized`` are ours that took
    another grid or patch; ``ignored`` are the checkpoint's that are known not to be used;
    ``missing`` are ours that keep their values (only where the caller allowed it).
    """

    layout: str
    loaded: int
    resized: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.loaded} tensors loaded from names of {self.layout}"
        for word in ("resized", "ignored", "missing"):
            names = getattr(self, word)
            if names:
                text += f"; {len(names)} {word}: {_some(names)}"
        return text


@dataclass
class _Renamed:
    """A checkpoint under our names."""

    layout: str
    tensors: dict[str, Tensor]
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def load_checkpoint(module: nn.Module, path: Path) -> LoadReport:
    """Fill ``module`` from a published checkpoint of its family, or from one of our own.

    Position embeddings of another grid are resized as the family does it. On an error the module is
    left as it was.

    :raises ArtefactError: if the file cannot be read or is of another family or variant: naming
        what is missing, unexpected or of another shape.
    """
    return _load(module, read_checkpoint(path), _layouts(module), path, backbone=False)


def load_backbone(backbone: VisionTransformer | SwinTransformer, path: Path) -> LoadReport:
    """Fill a backbone from ImageNet, DINOv2, BEiT or Swin weights, for fine-tuning.

    Besides the positions, the patch embedding is resampled bicubically to another patch size
    (DINOv2's 14 to 16, say), blocks after the last tap and tokens that the transformer does not
    have are ignored, and a final norm that only the checkpoint has is, too. A Swin's norms of the
    shallower stages, which classification does not have, keep their values.

    :raises ArtefactError: as :func:`load_checkpoint`.
    """
    layouts: Mapping[str, Table] = checkpoint_names.BACKBONES
    if isinstance(backbone, SwinTransformer):
        layouts = {"Swin": upernet_names.swin("", "")}
    theirs = beit.unfolded(read_checkpoint(path))
    return _load(backbone, theirs, layouts, path, backbone=True)


def _layouts(module: nn.Module) -> Mapping[str, Table]:
    if isinstance(module, Segmenter):
        return {"Segmenter": checkpoint_names.SEGMENTER}
    if isinstance(module, DepthAnything):
        return {
            "Depth Anything V2": checkpoint_names.DEPTH_ANYTHING,
            "Hugging Face": checkpoint_names.DEPTH_ANYTHING_HF,
        }
    if isinstance(module, DPT):
        kind = (bool(module.config.stem_depths), bool(module.config.classes))
        return {
            "DPT": checkpoint_names.dpt(*kind),
            "Hugging Face": checkpoint_names.dpt_hf(*kind),
        }
    if isinstance(module, UperNet):
        body = _upernet_body(module.backbone)
        return {"OpenMMLab": [*body, *checkpoint_names.UPERNET_HEADS]} if body else {}
    return {}


def _upernet_body(backbone: nn.Module) -> Table:
    """The table of OpenMMLab's and the authors' backbones; empty for one nobody published."""
    if isinstance(backbone, ViTCoMer):
        return upernet_names.vit_comer(backbone.config, r"backbone\.", "backbone.")
    if isinstance(backbone, SwinTransformer):
        return upernet_names.swin(r"backbone\.", "backbone.")
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
    if backbone:
        _drop_unused(renamed, module, ours)
        if isinstance(module, SwinTransformer):
            kept = sorted(k for k in ours if k.startswith("norms.") and k not in renamed.tensors)
    resized = resize_to(module, renamed.tensors, ours, backbone)
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
        f"{len(names)} {what}: {_some(names)}"
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
    broken = [key for key, value in renamed.tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise ArtefactError(f"{path} has NaN or infinite weights in {_some(broken)}: get it again")
    module.load_state_dict(renamed.tensors, strict=False)
    return LoadReport(
        renamed.layout,
        len(renamed.tensors),
        tuple(resized),
        tuple(sorted(renamed.ignored)),
        tuple(kept),
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


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(names: Any) -> str:
    names = list(names)
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
