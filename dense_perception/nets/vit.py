"""The vision transformer that DPT, Segmenter and Depth Anything share (Dosovitskiy 2020,
arXiv:2010.11929; DPT section 3.1).

Tokens are float32 (B, N, C): one per patch in row-major order, after the class token (and DeiT's
distillation token) if there is one. Nothing after the last tapped block is built. DPT reads raw
block outputs; Segmenter and DINOv2's users read them through the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.beit import GridPositionBias
from dense_perception.nets.positions import PositionEmbedding
from dense_perception.nets.windows import WindowLayout


class DropPath(nn.Module):
    """Zero the branch of a sample with probability ``rate`` in training, else scale it up.

    The identity in evaluation mode. The input's first dimension is the batch.

    :raises InputError: for a rate outside [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise InputError(f"drop path rate is {rate}, expected 0 <= rate < 1")
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = branch.new_empty(shape).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)


def linear_rates(last: float, count: int) -> list[float]:
    """The usual schedule: from 0 at the first block to ``last`` at the last of ``count``."""
    return [last * index / max(count - 1, 1) for index in range(count)]


LAYER_NORM_EPS = 1e-6


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    ``qk_norm`` normalises queries and keys per head before their product (Dehghani 2023,
    arXiv:2302.05442), which keeps training from scratch stable in reduced precision.
    """

    def __init__(
        self, dim: int, heads: int, qk_norm: bool = False, eps: float = LAYER_NORM_EPS
    ) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(f"{heads} heads do not divide {dim} channels: choose a divisor")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.query_norm = nn.LayerNorm(dim // heads, eps) if qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(dim // heads, eps) if qk_norm else nn.Identity()
        self.project = nn.Linear(dim, dim)

    def forward(
        self,
        tokens_bnc: Tensor,
        layout: WindowLayout | None = None,
        bias_hnn: Tensor | None = None,
    ) -> Tensor:
        """All tokens attend to all, or within the windows of ``layout`` (ViTDet's, unshifted).

        ``bias_hnn`` is added to the logits of global attention. A grid padded to whole windows is
        padded after the projection, so the padding's queries, keys and values are zero, and it is
        attended to.
        """
        qkv_bnc = self.qkv(tokens_bnc)
        if layout is None:
            return self.project(self._mix(qkv_bnc, bias_hnn))
        qkv_bhwc = qkv_bnc.reshape(-1, *layout.grid_hw, qkv_bnc.shape[-1])
        return self.project(layout.join(self._mix(layout.cut(qkv_bhwc))).flatten(1, 2))

    def _mix(self, qkv_bnc: Tensor, bias_hnn: Tensor | None = None) -> Tensor:
        b, n, c = qkv_bnc.shape[0], qkv_bnc.shape[1], qkv_bnc.shape[2] // 3
        q_bnc, k_bnc, v_bnc = qkv_bnc.chunk(3, dim=-1)
        d = c // self.heads
        shape = (b, n, self.heads, d)
        q_bhnd = self.query_norm(q_bnc.reshape(shape)).permute(0, 2, 1, 3)
        k_bhnd = self.key_norm(k_bnc.reshape(shape)).permute(0, 2, 1, 3)
        v_bhnd = v_bnc.reshape(shape).permute(0, 2, 1, 3)
        if _operators_count(qkv_bnc):
            logits_bhnn = (q_bhnd * d**-0.5) @ k_bhnd.transpose(-1, -2)
            if bias_hnn is not None:
                logits_bhnn = logits_bhnn + bias_hnn
            mixed_bhnd = torch.softmax(logits_bhnn, dim=-1) @ v_bhnd
        else:
            mixed_bhnd = F.scaled_dot_product_attention(q_bhnd, k_bhnd, v_bhnd, bias_hnn)
        return mixed_bhnd.permute(0, 2, 1, 3).reshape(b, n, c)


def _operators_count(tensor: Tensor) -> bool:
    """Whether operators are recorded rather than computed: then attention is written out.

    The fused operator never stores the logits, and is faster. But it exports to a dozen nodes of
    shape arithmetic, and on the meta device the roofline would see one operation of unknown kind.
    """
    return tensor.is_meta or torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


class MLP(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens_bnc)))


class LayerScale(nn.Module):
    """One learned factor per channel on a residual branch (Touvron 2021, arXiv:2103.17239)."""

    def __init__(self, dim: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.gamma_c = nn.Parameter(torch.full((dim,), initial))

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        return tokens_bnc * self.gamma_c


class TransformerBlock(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)), each branch scaled if asked."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        eps: float = LAYER_NORM_EPS,
        layer_scale: bool = False,
        drop_path: float = 0.0,
        window: int = 0,
        position_bias: GridPositionBias | None = None,
    ) -> None:
        super().__init__()
        self.window = window
        self.position_bias = position_bias
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attention = SelfAttention(dim, heads, qk_norm, eps)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.scale1: nn.Module = LayerScale(dim) if layer_scale else nn.Identity()
        self.scale2: nn.Module = LayerScale(dim) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens_bnc: Tensor, grid_hw: tuple[int, int] | None = None) -> Tensor:
        """``grid_hw`` is the patch grid, needed by windows and relative positions alone."""
        layout = WindowLayout(grid_hw, self.window) if self.window and grid_hw else None
        bias_hnn = self.position_bias(grid_hw) if self.position_bias and grid_hw else None
        attended_bnc = self.attention(self.norm1(tokens_bnc), layout, bias_hnn)
        tokens_bnc = tokens_bnc + self.drop_path(self.scale1(attended_bnc))
        return tokens_bnc + self.drop_path(self.scale2(self.mlp(self.norm2(tokens_bnc))))


class VisionTransformer(nn.Module):
    """Patch embedding, positions, transformer blocks; returns the tokens after ``taps``.

    In a hybrid the "image" is a convolutional stem's deepest map and ``patch`` is 1.

    :param taps: zero-based indices of the blocks whose outputs are returned; later blocks are not
        built.
    :param distilled: DeiT's second extra token, after the class token.
    :param final_norm: a LayerNorm on every returned map; without it the outputs are raw.
    :param drop_path: the last block's rate of stochastic depth.
    :param relative_positions: BEiT's logits per offset in each block instead of a position table.
    :param windows: side in patches of each block's attention windows, 0 for global attention;
        empty for global attention everywhere. Windows exclude extra tokens.
    """

    def __init__(
        self,
        channels_in: int,
        dim: int,
        heads: int,
        taps: Sequence[int],
        grid_hw: tuple[int, int],
        patch: int = 16,
        class_token: bool = True,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        eps: float = LAYER_NORM_EPS,
        *,
        distilled: bool = False,
        layer_scale: bool = False,
        final_norm: bool = False,
        position_resize: str = "bilinear",
        drop_path: float = 0.0,
        windows: Sequence[int] = (),
        relative_positions: bool = False,
    ) -> None:
        super().__init__()
        if relative_positions and (distilled or any(windows) or not class_token):
            raise InputError(
                "relative positions need a class token alone and global attention: choose these"
            )
        if any(windows) and (class_token or len(windows) != taps[-1] + 1):
            raise InputError(
                f"windows are {list(windows)}, expected one side per block and no class token"
            )
        if distilled and not class_token:
            raise InputError("a distillation token needs a class token before it")
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0:
            raise InputError(f"taps are {list(taps)}, expected increasing block indices from 0")
        self.taps = tuple(taps)
        self.patch = patch
        self.patch_embed = nn.Conv2d(channels_in, dim, patch, patch)
        self.class_token_11c = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.distillation_token_11c = nn.Parameter(torch.zeros(1, 1, dim)) if distilled else None
        self.prefix = int(class_token) + int(distilled)
        self.position = (
            None
            if relative_positions
            else PositionEmbedding(dim, grid_hw, self.prefix, position_resize)
        )
        rates = linear_rates(drop_path, taps[-1] + 1)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim,
                heads,
                mlp_ratio,
                qk_norm,
                eps,
                layer_scale,
                rate,
                window,
                GridPositionBias(grid_hw, heads) if relative_positions else None,
            )
            for rate, window in zip(rates, windows or [0] * len(rates), strict=True)
        )
        self.norm: nn.Module = nn.LayerNorm(dim, eps) if final_norm else nn.Identity()
        self.apply(_initialise)
        if self.position is not None:
            nn.init.trunc_normal_(self.position.table_1nc, std=0.02)

    def forward(self, image_bchw: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """(B, C, H, W) to the tapped tokens, each (B, N, C), and the patch grid (rows, columns).

        The first ``prefix`` tokens are the extra ones.

        :raises InputError: if H or W is not a multiple of the patch.
        """
        tokens_bnc, grid_hw = self.embed(image_bchw)
        tapped = []
        for index, block in enumerate(self.blocks):
            tokens_bnc = block(tokens_bnc, grid_hw)
            if index in self.taps:
                tapped.append(self.norm(tokens_bnc))
        return tapped, grid_hw

    def embed(self, image_bchw: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What enters the first block: tokens with their positions, and the patch grid.

        :raises InputError: if H or W is not a multiple of the patch.
        """
        height, width = image_bchw.shape[-2:]
        if height % self.patch or width % self.patch:
            raise InputError(
                f"image is {width}x{height}, expected multiples of the patch of {self.patch}: "
                "resize it first"
            )
        grid_hw = (height // self.patch, width // self.patch)
        tokens_bnc = self.patch_embed(image_bchw).flatten(2).transpose(1, 2)
        added: list[Tensor] = [] if self.position is None else [self.position(grid_hw)]
        extra: list[Tensor] = [
            t for t in (self.class_token_11c, self.distillation_token_11c) if t is not None
        ]
        if extra:
            # Zero tokens plus the extra ones: joining them per frame would need the batch's size
            # in the graph, and with it shape arithmetic on the byte input.
            patches = tokens_bnc.shape[1]
            tokens_bnc = F.pad(tokens_bnc, (0, 0, len(extra), 0))
            added.append(F.pad(torch.cat(extra, dim=1), (0, 0, 0, patches)))
        if not added:
            return tokens_bnc, grid_hw
        # The constants first: their sum is one of the graph's, and a lone table keeps its name.
        return tokens_bnc + reduce(torch.add, added), grid_hw


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
