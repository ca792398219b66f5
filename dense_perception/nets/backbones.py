"""Published backbones by name: where their weights are, and which pixels they know.

DINOv2's, Swin's and BEiT's publishers state no digests: the first file that is fetched is
remembered, and another one under its name is refused afterwards. DeiT's file names carry the
beginning of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dense_perception.core.card_specs import CheckpointSource
from dense_perception.core.storage import cache_dir

Triple = tuple[float, float, float]
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class PublishedBackbone:
    """The weights of one backbone; ``pixels`` are the mean and deviation it was trained with."""

    source: CheckpointSource
    licence: str
    pixels: tuple[Triple, Triple] = IMAGENET


def backbone_path(name: str) -> Path:
    """Where ``fetch`` puts the weights of a published backbone, not necessarily there."""
    return cache_dir() / "checkpoints" / name / BACKBONES[name].source.file


def backbone_at(path: Path) -> str:
    """The name of the published backbone whose place ``path`` is; empty where it is none."""
    name = path.parent.name
    return name if name in BACKBONES and path == backbone_path(name) else ""


def _at(folder: str, file: str, licence: str, digest: str = "") -> PublishedBackbone:
    return PublishedBackbone(CheckpointSource(f"{folder}/{file}", file, digest), licence)


def _deit(size: str, digest: str) -> PublishedBackbone:
    file = f"deit_{size}_patch16_224-{digest}.pth"
    return _at("https://dl.fbaipublicfiles.com/deit", file, "Apache-2.0", digest)


def _dinov2(size: str) -> PublishedBackbone:
    name = f"dinov2_vit{size}14"
    folder = f"https://dl.fbaipublicfiles.com/dinov2/{name}"
    return _at(folder, f"{name}_pretrain.pth", "Apache-2.0")


def _swin(size: str, data: str = "") -> PublishedBackbone:
    folder = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0"
    return _at(folder, f"swin_{size}_patch4_window7_224{data}.pth", "MIT")


def _beit(size: str) -> PublishedBackbone:
    folder = "https://github.com/addf400/files/releases/download/v1.0"
    found = _at(folder, f"beit_{size}_patch16_224_pt22k_ft22k.pth", "MIT")
    return PublishedBackbone(found.source, found.licence, HALF)


BACKBONES: Mapping[str, PublishedBackbone] = {
    "deit_tiny": _deit("tiny", "a1311bcf"),
    "deit_small": _deit("small", "cd65a155"),
    "deit_base": _deit("base", "b5f2ef4d"),
    "dinov2_small": _dinov2("s"),
    "dinov2_base": _dinov2("b"),
    "dinov2_large": _dinov2("l"),
    "swin_tiny_imagenet": _swin("tiny"),
    "swin_small_imagenet": _swin("small"),
    "swin_base_imagenet22k": _swin("base", "_22k"),
    "swin_large_imagenet22k": _swin("large", "_22k"),
    "beit_base": _beit("base"),
    "beit_large": _beit("large"),
}
"""Name to weights: of ImageNet-1k, or ImageNet-22k where the name says so and for BEiT; DINOv2's
were trained without labels on LVD-142M."""
