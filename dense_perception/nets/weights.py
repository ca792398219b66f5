"""Published weights into our networks: every tensor is placed, or explained, or refused.

A file is only ever read as tensors (``weights_only``, or safetensors): a pickle that wants to run
code is refused before anything of it runs.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import ArtefactError
from dense_perception.nets import beit, checkpoint_names, upernet_names
from dense_perception.nets.checkpoint_names import Table
from dense_perception.nets.depth_anything import DepthAnything
from dense_perception.nets.dpt import DPT
from dense_perception.nets.segmenter import Segmenter
from dense_perception.nets.swin import SwinTransformer
from dense_perception.nets.upernet import UperNet
from dense_perception.nets.vit import PositionEmbedding, VisionTransformer, resize_positions
from dense_perception.nets.vit_comer import ViTCoMer

# Where a training script's dictionary keeps the network's weights.
_WRAPPERS = ("model", "state_dict")
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


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The named tensors of a ``.safetensors`` file or of a PyTorch checkpoint, on the CPU.

    :raises ArtefactError: if the file is missing, truncated, holds no named tensors, or would need
        more than tensors and plain data to be read.
    """
    if not path.is_file():
        raise ArtefactError(f"there is no checkpoint {path}: fetch it or check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            data: Any = load_file(path)
        else:
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtefactError(
            f"{path} holds more than tensors and plain data, or is damaged; nothing of it was "
            "executed. Get the checkpoint from its publisher, or save its state dictionary alone "
            f"({_refused(error)})"
        ) from error
    except Exception as error:  # the readers' failures have no common base
        raise ArtefactError(
            f"cannot read the checkpoint {path}: it is cut off, damaged or no checkpoint; get it "
            f"again ({_first_line(error)})"
        ) from error
    for key in _WRAPPERS:
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    tensors = (
        {key: value for key, value in data.items() if isinstance(value, Tensor)}
        if isinstance(data, Mapping)
        else {}
    )
    if not tensors or not all(isinstance(key, str) for key in data):
        raise ArtefactError(
            f"{path} holds no named tensors: expected a state dictionary, or one under "
            f"{' or '.join(map(repr, _WRAPPERS))}"
        )
    # DistributedDataParallel prefixes everything with the wrapper's name.
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


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


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(names: Any) -> str:
    names = list(names)
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _refused(error: Exception) -> str:
    """What the reader objects to; the rest of its text explains how to run the code after all."""
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it asks for {match[1]}" if match else "it is not readable as tensors"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
