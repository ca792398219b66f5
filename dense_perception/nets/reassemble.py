"""From tokens back to image-like maps (Ranftl 2021, section 3.2, "Reassemble")."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError

READOUTS = ("ignore", "add", "project")
SCALES = (4.0, 2.0, 1.0, 0.5)


class Readout(nn.Module):
    """What becomes of the class token: dropped, added to every token, or mixed in by a Linear.

    (B, 1 + N, C) to (B, N, C).
    """

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        if kind not in READOUTS:
            raise InputError(f"readout is {kind!r}, expected one of {list(READOUTS)}")
        self.kind = kind
        self.project = nn.Linear(2 * dim, dim) if kind == "project" else None

    def forward(self, tokens_bnc: Tensor) -> Tensor:
        class_b1c, patches_bnc = tokens_bnc[:, :1], tokens_bnc[:, 1:]
        if self.kind == "add":
            return patches_bnc + class_b1c
        if self.project is not None:
            # The Linear of [patch, class], without a copy of the class token per patch.
            patch_weight, class_weight = self.project.weight.chunk(2, dim=1)
            shared_b1c = F.linear(class_b1c, class_weight, self.project.bias)
            return F.gelu(F.linear(patches_bnc, patch_weight) + shared_b1c)
        return patches_bnc


class Reassemble(nn.Module):
    """Read, concatenate into a grid, project to ``channels``, resample by ``scale``.

    :param readout: one of :data:`READOUTS`, or None where there is no class token.
    :param scale: one of :data:`SCALES`: output side over patch-grid side.
    """

    def __init__(self, dim: int, channels: int, scale: float, readout: str | None) -> None:
        super().__init__()
        self.readout: nn.Module = nn.Identity() if readout is None else Readout(dim, readout)
        self.project = nn.Conv2d(dim, channels, 1)
        self.resample: nn.Module
        if scale in (4.0, 2.0):
            factor = int(scale)
            self.resample = nn.ConvTranspose2d(channels, channels, factor, factor)
        elif scale == 1.0:
            self.resample = nn.Identity()
        elif scale == 0.5:
            self.resample = nn.Conv2d(channels, channels, 3, 2, 1)
        else:
            raise InputError(f"scale is {scale}, expected one of {list(SCALES)}")

    def forward(self, tokens_bnc: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """(B, N, C) tokens of a patch grid to (B, channels, rows * scale, columns * scale)."""
        patches_bcn = self.readout(tokens_bnc).transpose(1, 2)
        b, c, _ = patches_bcn.shape
        return self.resample(self.project(patches_bcn.reshape(b, c, *grid_hw)))
