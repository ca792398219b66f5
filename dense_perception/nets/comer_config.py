"""What makes a ViT-CoMer or an X-CoMer: sizes, which interactions there are, published variants."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dense_perception.core.errors import InputError
from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig

STAGES = 4
ALL = (True, True, True, True)


@dataclass(frozen=True)
class CoMerConfig:
    """The convolutional branch and its interactions; the flags have one entry per stage.

    :param to_v: whether the stage's pyramid informs the transformer; the paper's "light" variants
        switch some off.
    :param to_c: whether the stage's transformer informs the pyramid.
    :param interaction: whether the pyramid's levels attend to one another there.
    :param stage_features: each stage's output is added to its own scale (segmentation), or the
        last stage's to all (detection).
    :param mrfp_ratio: hidden width of the MRFP relative to the branch's.
    :param deform_ratio: width of the deformable attention's values relative to the branch's.
    :param extra: CTI modules after the last stage.
    :param drop_path: rate of stochastic depth, of the transformer's last block too.
    """

    to_v: tuple[bool, bool, bool, bool] = ALL
    to_c: tuple[bool, bool, bool, bool] = ALL
    interaction: tuple[bool, bool, bool, bool] = ALL
    stage_features: bool = True
    mrfp_ratio: float = 1.0
    deform_heads: int = 6
    deform_ratio: float = 1.0
    points: int = 4
    ffn_ratio: float = 0.25
    extra: int = 4
    stem: int = 64
    drop_path: float = 0.0


@dataclass(frozen=True)
class ViTCoMerConfig(CoMerConfig):
    """With a plain ViT of patch 16 without class token.

    :param window: side in patches of the attention windows of two blocks of three; 0 for global
        attention everywhere.
    :param grid: rows and columns of the stored position embedding (pretraining size / 16).
    """

    dim: int = 384
    depth: int = 12
    heads: int = 6
    window: int = 0
    grid: tuple[int, int] = (14, 14)

    def __post_init__(self) -> None:
        if self.depth < STAGES or self.depth % STAGES:
            raise InputError(f"depth is {self.depth}, expected a multiple of {STAGES} stages")

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of each block's windows; every third block attends globally."""
        return tuple(0 if index % 3 == 2 else self.window for index in range(self.depth))


@dataclass(frozen=True)
class XCoMerConfig(CoMerConfig, SwinConfig):
    """With a Swin transformer instead; ``width`` is the pyramid's channels."""

    width: int = 384


# The authors' segmentation configurations. They publish none for a plain ViT-L; its MRFP is B's.
VIT_COMER_VARIANTS = {
    "tiny": ViTCoMerConfig(dim=192, heads=3, mrfp_ratio=6.0, drop_path=0.1),
    "small": ViTCoMerConfig(dim=384, heads=6, mrfp_ratio=1.5, drop_path=0.2),
    "base": ViTCoMerConfig(
        dim=768, heads=12, deform_heads=12, deform_ratio=0.5, mrfp_ratio=1.0, drop_path=0.3
    ),
    "large": ViTCoMerConfig(
        dim=1024,
        depth=24,
        heads=16,
        deform_heads=16,
        deform_ratio=0.5,
        mrfp_ratio=1.0,
        drop_path=0.3,
    ),
}
X_COMER_VARIANTS = {
    name: XCoMerConfig(
        **{**asdict(swin), "drop_path": 0.2},
        width=swin.dims[2],
        deform_heads=swin.heads[2],
        deform_ratio=0.5,
    )
    for name, swin in SWIN_VARIANTS.items()
}
