"""ViT-CoMer: a plain transformer and a convolutional pyramid that inform each other (Xia 2024).

arXiv:2403.07392, CVPR 2024. Four stages; in each the pyramid is filtered (MRFP), informs the
transformer (CTI to V), the transformer's blocks run, and it informs the pyramid (CTI to C). The
published forms for segmentation and for detection differ; both are configurations here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dense_perception.core.errors import InputError
from dense_perception.nets.comer import MRFP, ConvStem, CTIToC, CTIToV, Pyramid, initialise, resize
from dense_perception.nets.deformable import MultiScaleDeformableAttention
from dense_perception.nets.swin import SWIN_VARIANTS, SwinConfig, SwinStage, SwinTransformer
from dense_perception.nets.vit import LayerScale, VisionTransformer

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


class CoMerStage(nn.Module):
    """What surrounds the transformer's blocks in one stage.

    :param level: the pyramid's level the branch is added to.
    """

    def __init__(self, config: CoMerConfig, stage: int, dim: int, branch_dim: int, level: int):
        super().__init__()
        self.level = level
        shared = (config.deform_heads, config.points, config.deform_ratio, config.ffn_ratio)
        interaction = config.interaction[stage]
        self.mrfp = self.to_v = self.to_c = None
        if config.to_v[stage]:
            self.mrfp = MRFP(dim, config.mrfp_ratio)
            self.to_v = CTIToV(dim, branch_dim, *shared, config.drop_path)
        if config.to_c[stage]:
            self.to_c = CTIToC(dim, *shared, config.drop_path, interaction, extra=False)
        self.extra = nn.ModuleList(
            CTIToC(dim, *shared, config.drop_path, interaction, extra=True)
            for _ in range(config.extra if stage == STAGES - 1 else 0)
        )
        same = branch_dim == dim
        self.adapt: nn.Module = nn.Identity() if same else nn.Linear(branch_dim, dim)

    def before(self, x_bhwc: Tensor, c_bnc: Tensor, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
        """Filter the pyramid and let it inform the branch."""
        if self.mrfp is None or self.to_v is None:
            return x_bhwc, c_bnc
        c_bnc = self._add(self.mrfp(c_bnc, pyramid), x_bhwc, pyramid)
        grid_hw = (x_bhwc.shape[1], x_bhwc.shape[2])
        return x_bhwc + self.to_v(c_bnc, pyramid, grid_hw), c_bnc

    def after(self, x_bhwc: Tensor, c_bnc: Tensor, pyramid: Pyramid) -> Tensor:
        """Let the branch inform the pyramid."""
        for module in [self.to_c, *self.extra]:
            if module is not None:
                c_bnc = module(self._add(c_bnc, x_bhwc, pyramid), pyramid)
        return c_bnc

    def _add(self, c_bnc: Tensor, x_bhwc: Tensor, pyramid: Pyramid) -> Tensor:
        x_bchw = self.adapt(x_bhwc).permute(0, 3, 1, 2)
        x_bchw = resize(x_bchw, pyramid.shapes[self.level])
        return pyramid.add(c_bnc, self.level, x_bchw.flatten(2).transpose(1, 2))


class CoMerNeck(nn.Module):
    """The pyramid from stem to the four output maps; the transformers below share it."""

    def __init__(
        self, config: CoMerConfig, dim: int, branch_dims: Sequence[int], levels: Sequence[int]
    ) -> None:
        super().__init__()
        self.stem = ConvStem(dim, config.stem)
        self.level_embed_3c = nn.Parameter(torch.empty(3, dim))
        self.stages = nn.ModuleList(
            CoMerStage(config, stage, dim, branch_dims[stage], levels[stage])
            for stage in range(STAGES)
        )
        self.up = nn.ConvTranspose2d(dim, dim, 2, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(STAGES))
        self.apply(initialise)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.reset_parameters()
        nn.init.normal_(self.level_embed_3c)

    def steps(self) -> list[CoMerStage]:
        """The stages in order."""
        return [cast(CoMerStage, stage) for stage in self.stages]

    def start(self, image_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """The map at 1/4 and the tokens of the three coarser levels."""
        finest_bchw, *maps = self.stem(image_bchw)
        embedded = [
            map_bchw.flatten(2).transpose(1, 2) + self.level_embed_3c[level]
            for level, map_bchw in enumerate(maps)
        ]
        return finest_bchw, torch.cat(embedded, dim=1)

    def finish(
        self,
        finest_bchw: Tensor,
        c_bnc: Tensor,
        features: Sequence[Tensor],
        pyramid: Pyramid,
    ) -> list[Tensor]:
        """Four maps; ``features`` (B, C, H, W) of the transformer are resized and added."""
        maps = pyramid.maps(c_bnc)
        maps = [self.up(maps[0]) + finest_bchw, *maps]
        # In this order: with the resized map second, OpenVINO 2026.4 fuses what follows into its
        # resize and answers wrongly at some sizes, if the size is fixed when it compiles.
        return [
            norm(resize(feature_bchw, map_bchw.shape[-2:]) + map_bchw)
            for norm, map_bchw, feature_bchw in zip(self.norms, maps, features, strict=True)
        ]


class ViTCoMer(nn.Module):
    """(B, 3, H, W) normalised RGB to four maps (B, dim, H_i, W_i) at 1/4, 1/8, 1/16 and 1/32.

    :raises InputError: in ``forward``, if H or W is not a multiple of 32.
    """

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = (config.dim,) * STAGES
        self.vit = VisionTransformer(
            channels_in=3,
            dim=config.dim,
            heads=config.heads,
            taps=(config.depth - 1,),
            grid_hw=config.grid,
            class_token=False,
            layer_scale=True,
            position_resize="bicubic",
            drop_path=config.drop_path,
            windows=config.windows if config.window else (),
        )
        for module in self.vit.modules():
            if isinstance(module, LayerScale):
                nn.init.ones_(module.gamma_c)
        # The plain transformer stays at 1/16, the pyramid's second level, in every stage.
        self.neck = CoMerNeck(config, config.dim, (config.dim,) * STAGES, (1,) * STAGES)

    def freeze_transformer(self) -> None:
        """Fine-tune the convolutional branch alone (the paper's parameter-efficient setting)."""
        self.vit.requires_grad_(False)

    def forward(self, image_bchw: Tensor) -> list[Tensor]:
        pyramid = Pyramid(image_bchw.shape[2], image_bchw.shape[3])
        finest_bchw, c_bnc = self.neck.start(image_bchw)
        x_bnc, grid_hw = self.vit.embed(image_bchw)
        per_stage = self.config.depth // STAGES
        features = []
        for index, stage in enumerate(self.neck.steps()):
            x_bhwc, c_bnc = stage.before(x_bnc.unflatten(1, grid_hw), c_bnc, pyramid)
            x_bnc = x_bhwc.flatten(1, 2)
            for block in self.vit.blocks[index * per_stage : (index + 1) * per_stage]:
                x_bnc = block(x_bnc, grid_hw)
            x_bhwc = x_bnc.unflatten(1, grid_hw)
            c_bnc = stage.after(x_bhwc, c_bnc, pyramid)
            features.append(x_bhwc.permute(0, 3, 1, 2))
        if not self.config.stage_features:
            features = [features[-1]] * STAGES
        return self.neck.finish(finest_bchw, c_bnc, features, pyramid)


class XCoMer(nn.Module):
    """CoMer on a hierarchical transformer: the maps of :class:`ViTCoMer`, of ``width`` channels.

    The paper reports X-CoMer on Swin without its wiring. Here a Swin stage at 1/8, 1/16 or 1/32
    meets the pyramid's level of its own grid, the one at 1/4 the finest level, resized; linear
    layers go between the widths. Sides are multiples of 32.
    """

    def __init__(self, config: XCoMerConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = (config.width,) * STAGES
        self.swin = SwinTransformer(config)
        dims = config.dims
        self.neck = CoMerNeck(config, config.width, dims, (0, 0, 1, 2))
        added = dims if config.stage_features else dims[-1:] * STAGES
        self.adapt = nn.ModuleList(nn.Conv2d(dim, config.width, 1) for dim in added)
        self.adapt.apply(initialise)

    def freeze_transformer(self) -> None:
        """Fine-tune the convolutional branch alone."""
        self.swin.requires_grad_(False)

    def forward(self, image_bchw: Tensor) -> list[Tensor]:
        pyramid = Pyramid(image_bchw.shape[2], image_bchw.shape[3])
        finest_bchw, c_bnc = self.neck.start(image_bchw)
        x_bhwc = self.swin.embed(image_bchw)
        features = []
        swin_stages = [cast(SwinStage, stage) for stage in self.swin.stages]
        for stage, blocks, norm in zip(
            self.neck.steps(), swin_stages, self.swin.norms, strict=True
        ):
            x_bhwc, c_bnc = stage.before(blocks.merge(x_bhwc), c_bnc, pyramid)
            for block in blocks.blocks:
                x_bhwc = block(x_bhwc)
            c_bnc = stage.after(x_bhwc, c_bnc, pyramid)
            features.append(norm(x_bhwc).permute(0, 3, 1, 2))
        if not self.config.stage_features:
            features = [features[-1]] * STAGES
        adapted = [a(feature) for a, feature in zip(self.adapt, features, strict=True)]
        return self.neck.finish(finest_bchw, c_bnc, adapted, pyramid)
